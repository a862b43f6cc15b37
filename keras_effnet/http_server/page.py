"""The web page, and the policy that lets a browser load nothing but what is in it."""

import base64
import hashlib
import re
from importlib.resources import files


def load_page() -> tuple[str, str]:
    """Read the page.

    Returns:
        Its HTML, and its Content-Security-Policy: only the script and the style of the page itself.

    Example:
        >>> html, policy = load_page()
        >>> html.startswith("<!doctype html>"), "default-src 'none'" in policy
        (True, True)
    """
    html = (files("keras_effnet") / "http_server" / "page.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes('script', html)}; style-src {_hashes('style', html)}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hashes(tag: str, html: str) -> str:
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
