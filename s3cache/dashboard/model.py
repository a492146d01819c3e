"""What the statistics are in the admin's index: a model without a table."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = ["Statistics"]


class NoRows(models.Manager["Statistics"]):
    """Says that there are none, without asking for the table."""

    def get_queryset(self) -> models.QuerySet[Statistics]:
        return super().get_queryset().none()


class Statistics(models.Model):
    """
    Carries the permissions ``view`` and ``change``, and nothing else.

    `view` shows the page, `change` has its buttons work. Nothing of it is ever
    stored; an instance names, in the admin's log, what somebody has done
    something to.
    """

    name = models.CharField(primary_key=True, max_length=250)

    objects = NoRows()

    class Meta:
        app_label = "s3cache"
        base_manager_name = "objects"  # of `dumpdata --all`
        managed = False
        default_permissions = ("view", "change")
        verbose_name = verbose_name_plural = _("statistics")

    def __str__(self) -> str:
        return self.name
