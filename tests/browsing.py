"""Pages in a real browser, watched: errors, warnings and dialogs of theirs, and whatever they ask the network for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# Reduced motion: the page scrolls at once, so that what is pointed at does not slide away.
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
PHONE = {"reduced_motion": "reduce", "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


class WatchedPages:
    """Opens pages and remembers what went wrong in them, and the addresses they asked for."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.contexts: list[BrowserContext] = []
        self.problems: list[str] = []
        self.requests: list[str] = []

    def new(self, **options: Any) -> Page:
        """An empty page in a context of its own."""
        context = self._browser.new_context(**{**DESKTOP, **options})
        context.set_default_timeout(60_000)  # a busy machine
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: self.problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: (self.problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        return page

    def close(self) -> None:
        """Close them all, and see that nothing went wrong."""
        for context in self.contexts:
            context.close()
        assert self.problems == []
