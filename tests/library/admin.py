"""The library in the admin, as a project would register it."""

from __future__ import annotations

from django.contrib import admin

from tests.library.models import Author, Book, Tag


class BookInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Book
    fk_name = "author"
    extra = 0


@admin.register(Author)
class AuthorAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "born")
    search_fields = ("name",)
    inlines = (BookInline,)


admin.site.register(Book)
admin.site.register(Tag)
