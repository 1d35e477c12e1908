"""Who may ask: a page of this machine that knows the token. Everybody else gets one sentence."""

import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's content security policy: nothing but what this server gives it."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer."""

_READING = ("GET", "HEAD")


class Guard:
    """Lets a request through whose address begins with the token, and that no other site made.

    Args:
        app: what is guarded; it sees addresses without the token.
        token: a secret.
        hosts: the names and ports that this server may be called by: a site of another name that was made to lead here
            (DNS rebinding) is not among them.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: frozenset[str]) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await PlainTextResponse(f"{refusal}\n", status_code=403, headers=dict(HEADERS))(scope, receive, send)
            return
        path = "/" + scope["path"].removeprefix("/").partition("/")[2]

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send_guarded)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return "This address is not the one that underfire studio printed; open that one."
        first = scope["path"].removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(first.encode(), self._token):
            return "The address lacks the token of this studio; open the address that underfire studio printed."
        if scope["method"] not in _READING and origin is None:
            return "A request that changes something must come from the page of this studio; open it in a browser."
        if origin is not None and origin != f"http://{host}":
            return "Another site made this request, and underfire studio answers its own page alone."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "Another site made this request, and underfire studio answers its own page alone."
        return None
