"""Everything that ``make demo`` needs, in one command."""

from __future__ import annotations

import os
import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

USERNAME = "admin"


class Command(BaseCommand):
    help = (
        "Creates the tables, loads the airports, makes an admin login and serves "
        "the site. The login's password is EXAMPLE_ADMIN_PASSWORD, or a new one "
        "at each start."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "address",
            nargs="?",
            default="127.0.0.1:8000",
            help="Where to serve it (default: %(default)s).",
        )
        parser.add_argument(
            "--no-serve",
            action="store_false",
            dest="serve",
            help="Prepare everything, print the login, and stop.",
        )

    def handle(
        self, *, address: str, serve: bool, verbosity: int, **options: Any
    ) -> None:
        call_command("migrate", verbosity=max(verbosity - 1, 0), interactive=False)
        call_command("load_airports", verbosity=verbosity)
        password = os.environ.get("EXAMPLE_ADMIN_PASSWORD") or secrets.token_urlsafe(9)
        set_password(password)
        self.stdout.write(
            f"\n"
            f"  The site     http://{address}/\n"
            f"  The admin    http://{address}/admin/\n"
            f"  Login        {USERNAME} / {password}\n"
        )
        self.stdout.flush()  # whoever reads it through a pipe waits for it
        if serve:
            # Without the reloader, which would run all of this twice, and with
            # static files though DEBUG is off.
            call_command(
                "runserver", address, use_reloader=False, insecure_serving=True
            )


def set_password(password: str) -> None:
    """Make sure that the admin exists and has this password."""
    user, _ = get_user_model().objects.get_or_create(
        username=USERNAME, defaults={"is_staff": True, "is_superuser": True}
    )
    if not user.check_password(password):
        user.set_password(password)
        user.save()
