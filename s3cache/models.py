"""`S3Model`, the base of models that live in a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar, Self, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, models, router, transaction
from django.db.models.base import ModelBase

from s3cache.dashboard.model import Statistics  # noqa: F401  (the app's only table-less model)
from s3cache.exceptions import RowChanged, TransactionConflict
from s3cache.managers import S3Manager
from s3cache.options import S3Options
from s3cache.remembered import (
    changed_fields,
    name_of,
    remember_loaded,
    remember_saved,
    remembered_fields,
)
from s3cache.routers import InBucket
from s3cache.uuids import uuid7

__all__ = ["S3Model"]


class S3ModelBase(ModelBase):
    """
    The metaclass of `S3Model`: a UUIDv7 where no primary key is declared.

    Django adds its default key in the same place, and only then. A field on
    the abstract base would not do: a subclass that declares another primary
    key has two of them then.
    """

    def _prepare(cls) -> None:
        opts = cast("type[models.Model]", cls)._meta
        if opts.pk is None and not opts.parents:
            pk = models.UUIDField("ID", primary_key=True, default=uuid7, editable=False)
            pk.creation_counter = -1  # the first column, as Django's own
            cls.add_to_class("id", pk)
        super()._prepare()  # type: ignore[misc]


class S3Model(InBucket, models.Model, metaclass=S3ModelBase):
    """
    A model whose rows live in a bucket, wherever `S3Router` is configured.

    Its primary key is a UUIDv7 unless it declares another. ``class S3Meta``
    says how it is cached and written; see `S3Options`. Like ``Meta``, it is
    inherited as a whole: a subclass that has its own derives it from its
    parent's to keep what that says.
    """

    objects: ClassVar[S3Manager[Self]] = S3Manager()

    _s3meta: ClassVar[S3Options] = S3Options()

    class Meta:
        abstract = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._s3meta = S3Options.of(
            f"{cls.__module__}.{cls.__qualname__}", getattr(cls, "S3Meta", None)
        )

    def save(
        self,
        *args: Any,
        if_unchanged: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Save the instance; see Django for what the other arguments do.

        With `if_unchanged`, raise `RowChanged` and write nothing if the row
        was deleted, or is not as it was when this instance loaded, refreshed
        or last saved it, in any field that is not deferred. That holds
        against every host; inside a transaction, another host's change may
        show at its commit only, as a `TransactionConflict`. An instance that
        was never saved is inserted, and overwrites nothing.

        Raise `ValueError` if nothing is known of the row, as for an instance
        that ``bulk_create()`` made, or not all, as after saving an ``F()``
        expression; ``refresh_from_db()`` helps. It is also needed after a
        transaction that saved the instance was rolled back.
        """
        names = None if update_fields is None else frozenset(update_fields)
        if if_unchanged:
            if args:
                raise TypeError("save(if_unchanged=True) takes keyword arguments only.")
            self._save_if_unchanged(using, names, **kwargs)
        else:
            super().save(*args, using=using, update_fields=names, **kwargs)
            if len(args) > 3:  # Django 5.2 takes them by position, deprecated
                names = args[3]
        remember_saved(self, names)

    async def asave(self, *args: Any, **kwargs: Any) -> None:
        """Save the instance; see `save`."""
        await sync_to_async(self.save)(*args, **kwargs)

    @classmethod
    def from_db(
        cls,
        db: str | None,
        field_names: Collection[str],
        values: Collection[Any],
        **kwargs: Any,
    ) -> Self:
        # Django 6.1 passes fetch_mode too.
        instance = super().from_db(db, field_names, values, **kwargs)
        remember_loaded(instance, field_names, cast("Sequence[Any]", values))
        return instance

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Self] | None = None,
    ) -> None:
        names = None if fields is None else frozenset(fields)
        super().refresh_from_db(using, names, from_queryset)
        remember_saved(self, names)

    def _save_if_unchanged(
        self,
        using: str | None,
        update_fields: frozenset[str] | None,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
    ) -> None:
        if self._state.adding:
            super().save(force_insert=True, using=using)
            return
        if force_insert:
            raise ValueError("Cannot insert a row only if it is unchanged.")
        using = using or router.db_for_write(type(self), instance=self)
        attnames = remembered_fields(self)
        try:
            with transaction.atomic(using=using):
                self._refuse_if_changed(using, attnames)
                super().save(
                    force_update=True, using=using, update_fields=update_fields
                )
        except RowChanged:
            raise
        except TransactionConflict:
            # At the commit something that the block had read was different;
            # if it was not the row, it was what a signal's receiver read.
            if not connections[using].in_atomic_block:
                self._refuse_if_changed(using, attnames)
            raise

    def _refuse_if_changed(self, using: str, attnames: Sequence[str]) -> None:
        rows = type(self)._base_manager.using(using).select_for_update()
        try:
            row = rows.values(*attnames).get(pk=self.pk)
        except ObjectDoesNotExist:
            raise RowChanged(
                f"The row of {name_of(self)} was deleted since it was loaded."
            ) from None
        if changed := changed_fields(self, row, using):
            raise RowChanged(
                f"The row of {name_of(self)} changed since it was loaded, "
                f"in {', '.join(changed)}."
            )
