"""Makes the site, and serves it, in a thread beside the tests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import django
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def make() -> None:
    """Tables, people, and products with names that are none."""
    from django.apps import apps
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Permission, User
    from django.core.cache import cache
    from django.db import connection

    from tests.testapp.models import Product

    with connection.schema_editor() as editor:
        for model in apps.get_models():
            if model._meta.can_migrate(connection):
                editor.create_model(model)
    create_permissions(apps.get_app_config("s3cache"), verbosity=0)
    User.objects.create_superuser("root", password="root")
    for name, permissions in (("viewer", ["view_statistics"]), ("nobody", [])):
        user = User.objects.create_user(name, password=name, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    Product.objects.bulk_create(
        Product(sku=f"<script>alert({number})</script>", region="EU")
        for number in range(30)
    )
    cache.set(
        "<img src=x onerror=alert(1)>", {"<b>": "</pre><script>alert(2)</script>"}
    )
    connection.close()


@contextmanager
def served() -> Iterator[str]:
    """The address of the site, while it is there.

    All of it is in a thread of its own: in that of the tests, Playwright has
    an event loop, beside which Django refuses to touch a database.
    """
    made: queue.SimpleQueue[ThreadedWSGIServer | BaseException] = queue.SimpleQueue()

    def serve() -> None:
        try:
            server = _server()
        except BaseException as error:
            made.put(error)
            raise
        made.put(server)
        server.serve_forever(poll_interval=0.05)

    thread = threading.Thread(target=serve, name="site", daemon=True)
    thread.start()
    server = made.get()
    if isinstance(server, BaseException):
        raise server
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _server() -> ThreadedWSGIServer:
    django.setup()
    from django.core.wsgi import get_wsgi_application

    from s3cache.stores import DirectoryStore

    DirectoryStore.durable = False
    make()
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    return server
