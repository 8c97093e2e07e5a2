"""Calls to a store that may not answer: tried again for a while, then one clear sentence."""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from synfer_rt.data.storage.addresses import Address
from synfer_rt.errors import UserError

LOG = logging.getLogger("synfer_rt.jobs")  # whose warnings the commands show
PATIENCE = 300.0
"""Seconds from the first failure after which a call is not tried again."""
_FIRST, _LONGEST = 0.5, 20.0  # seconds between tries, doubled each time
Result = TypeVar("Result")

_THIS_DISK = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE)
)
_OF_THE_NETWORK = frozenset(
    (
        *("botocore.HTTPClientError", "botocore.ConnectionError", "botocore.ResponseParserError"),
        *("botocore.IncompleteReadError", "aiohttp.ClientError", "urllib3.HTTPError"),
        *("httpx.TransportError", "httpx2.TransportError", "google.TransportError"),
        *("gcsfs.ChecksumError", "requests.RequestException"),
    )
)
"""Errors of stores' libraries that are no OSError, by package and class; they are not imported."""
_NO_CREDENTIALS = re.compile("Credential|ProfileNotFound|TokenRetrieval|LocalTokenNotFound|SSO")
_SECRET = re.compile(r"(?<=://)[^/@\s]*@")
_LONGEST_REASON = 200


def patiently(address: Address, call: Callable[[], Result]) -> Result:
    """What `call` returns, which is tried again while `address` does not answer.

    FileNotFoundError, FileExistsError and ImportError pass through, and so do errors of this disk.
    Raises UserError when PATIENCE is over, and at once for what does not pass by itself.
    """
    pauses, until = _pauses(), 0.0
    while True:
        try:
            return call()
        except (FileNotFoundError, FileExistsError, ImportError, UserError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _THIS_DISK and not http_status(error):
                raise
            if not _may_pass(error):
                raise _refusal(address, error) from error
            now = time.monotonic()
            if not until:
                until = now + PATIENCE
                LOG.warning(
                    f"{address} does not answer ({reason(error)}); trying again for "
                    f"{_minutes(PATIENCE)}."
                )
            pause = next(pauses)
            if now + pause > until:
                raise UserError(
                    f"{address} has not answered for {_minutes(PATIENCE)} ({reason(error)}). What "
                    "is finished is kept there: run the same again when it answers, a run with "
                    "`resume=True`."
                ) from error
        time.sleep(pause)


def _pauses() -> Iterator[float]:
    """Growing times in seconds, not the same for all processes that a store has refused."""
    pause = _FIRST
    while True:
        yield pause * random.uniform(0.5, 1)
        pause = min(2 * pause, _LONGEST)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what raised it, which may say more."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error tells, as each store's library does it."""
    for one in _causes(error):
        response: object = getattr(one, "response", None)
        if isinstance(response, dict):  # botocore's
            answer = cast("dict[str, dict[str, object]]", response)
            status: object = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            own = getattr(one, "code", getattr(one, "status", None))
            status = getattr(response, "status_code", own)
        if str(status).isdigit():
            return int(str(status))
    return None


def _may_pass(error: BaseException) -> bool:
    """Whether an error is the network's or the store's, and may be gone at the next try."""
    if isinstance(error, PermissionError) or "CERTIFICATE" in str(error):
        return False
    status = http_status(error)
    if status is not None and status >= 300:
        return status >= 500 or status in (408, 409, 425, 429)
    if isinstance(error, OSError):
        ours = error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM)
        return not ours and not _forbidden(error)
    names = {
        f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        for one in _causes(error)
        for kind in type(one).__mro__
    }
    return isinstance(error, TimeoutError) or not names.isdisjoint(_OF_THE_NETWORK)


def _forbidden(error: OSError) -> bool:
    return str(error).startswith("Forbidden")  # gcsfs, which has no PermissionError


def reason(error: BaseException) -> str:
    """What an error says, in one short line without a name or password of an address."""
    lines = str(error).strip().splitlines()
    text = _SECRET.sub("…@", lines[0] if lines else "").rstrip(".")
    return text[:_LONGEST_REASON] or type(error).__name__


def _refusal(address: Address, error: Exception) -> UserError:
    """The sentence for what does not pass by itself."""
    if _NO_CREDENTIALS.search(type(error).__name__):
        return UserError(
            f"There are no credentials for {address} ({reason(error)}); give them as the store's "
            "library documents it, by environment variables, a profile or a role."
        )
    denied = isinstance(error, PermissionError) or http_status(error) in (401, 403)
    if denied or (isinstance(error, OSError) and _forbidden(error)):
        return UserError(
            f"{address} refuses access ({reason(error)}); check the credentials that this machine "
            "has, and that they may list, read and write there."
        )
    return UserError(
        f"{address} cannot be used ({reason(error)}); check the address and the settings of the "
        "store, then run the same again."
    )


def missing(address: Address) -> UserError:
    """The sentence for a bucket or repository that is not there."""
    what = "repository" if address.scheme == "hf" else "bucket"
    return UserError(
        f"There is no {what} {address.with_key('')}, or it is hidden from these credentials; "
        "create it, or correct the address."
    )
