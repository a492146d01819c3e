"""Model fields of the catalogue."""

from __future__ import annotations

from typing import Any

from django.db import models

from .folding import fold


class SearchField(models.TextField):  # type: ignore[type-arg]
    """
    What a search should find: the text of other fields, folded.

    Derived at each write, by the field and not by ``save()``, which
    ``bulk_create()`` does not call.
    """

    def __init__(
        self, *args: Any, sources: tuple[str, ...] = (), **kwargs: Any
    ) -> None:
        self.sources = sources
        super().__init__(*args, **{**kwargs, "editable": False})

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["editable"]
        return name, path, args, {**kwargs, "sources": self.sources}

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        text = fold(" ".join(getattr(model_instance, name) for name in self.sources))
        setattr(model_instance, self.attname, text)
        return text
