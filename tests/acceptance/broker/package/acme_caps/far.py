"""The same provider, for those who do not trust it: it runs in a process of its own."""

from __future__ import annotations

from dataclasses import replace

from acme_caps import Acme  # type: ignore[import-not-found]  # found where a test puts it


class Far(Acme):  # type: ignore[misc]  # as above
    descriptor = replace(Acme.descriptor, name="far", untrusted=True)


def provider() -> Far:
    return Far()
