"""A PostgreSQL server: where it is, the connections to it, and what it raises, said of a gallery."""

import os
import socket
import ssl
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from regraft.errors import MissingExtra, RegraftError, StoreError

try:
    from pg8000.native import Connection, DatabaseError, InterfaceError
except ImportError as error:
    raise MissingExtra.of("keeping a gallery in PostgreSQL", "pgvector") from error

FORM = "postgresql://USER@HOST:PORT/DATABASE?gallery=NAME"
OPTIONS = {"gallery", "host", "sslmode"}
SSL_MODES = ("disable", "prefer", "require", "verify-full")
SCHEMA_PREFIX = "regraft_"
LONGEST_IDENTIFIER = 63  # bytes; PostgreSQL cuts off the rest, and two names would mean one gallery
CONNECT_WAIT_S = 10.0

# The states of https://www.postgresql.org/docs/current/errcodes-appendix.html that a user can mend.
HINTS: Mapping[str, str] = {
    "28P01": "Put the password in the URL, or in the environment as PGPASSWORD.",
    "28000": "See pg_hba.conf on the server, or add sslmode=require to the URL.",
    "3D000": "createdb makes a database.",
    "42501": "Ask the database's owner for the right, or for CREATE EXTENSION vector.",
    "0A000": "Install pgvector on the server: https://github.com/pgvector/pgvector.",
    "58P01": "Install pgvector on the server: https://github.com/pgvector/pgvector.",
    "42704": "ALTER EXTENSION vector UPDATE; it must be pgvector 0.8 or later.",
    "53100": "Make room on the server's disk; nothing of this call was written.",
    "57P01": "The server was stopped; start it and try again.",
}


@dataclass(frozen=True)
class Address:
    """A gallery on a server."""

    gallery: str
    user: str
    database: str
    host: str
    """A name, or a folder that holds the server's socket."""
    port: int = 5432
    ssl_mode: str = "prefer"
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read an address as libpq would, and the name of a gallery beside it.

        `host=FOLDER` among the options is the folder of a socket on this machine; `sslmode` one of
        `SSL_MODES`. A password that the URL lacks is taken from the environment's PGPASSWORD.

        Raises:
            StoreError: The URL is not of this form. The message never holds the password.
        """
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
            port = parts.port or 5432
        except ValueError:  # its words may quote the URL, and the password with it
            raise StoreError(f"The gallery's URL cannot be read; expected {FORM}.") from None
        unknown = sorted(options.keys() - OPTIONS)
        ssl_mode = options.get("sslmode", "prefer")
        if parts.scheme != "postgresql" or not options.get("gallery") or unknown or ssl_mode not in SSL_MODES:
            raise StoreError(
                f"The gallery's URL has the scheme {parts.scheme!r} and the options {sorted(options)}; "
                f"expected {FORM}, and at most host=FOLDER and sslmode={'|'.join(SSL_MODES)} beside gallery."
            )
        user = unquote(parts.username or "") or os.environ.get("USER", "postgres")
        return cls(
            _checked_name(options["gallery"]),
            user,
            unquote(parts.path.removeprefix("/")) or user,
            unquote(parts.hostname or "") or options.get("host", "localhost"),
            port,
            ssl_mode,
            unquote(parts.password) if parts.password else os.environ.get("PGPASSWORD"),
        )

    @property
    def schema_name(self) -> str:
        """The schema that is the gallery's own."""
        return SCHEMA_PREFIX + self.gallery

    @property
    def schema(self) -> str:
        """The schema's name, quoted for SQL."""
        return quoted(self.schema_name)

    def __str__(self) -> str:
        return f"{self.gallery!r} in {self.user}@{self.host}:{self.port}/{self.database}"


class Server:
    """Connections to one server, kept open between transactions.

    Any number of threads may have a transaction each.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Connection] = []
        self._close = weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def transaction(self, mode: str, *, done: str) -> Generator[Connection]:
        """Yield a connection within a transaction that ends with the block: whole, or not at all.

        Args:
            mode: SQL that begins it.
            done: What the block does to the gallery, as in "cannot be read".

        Raises:
            StoreError: The server cannot be reached, or refused what the block asked of it.
        """
        with self._translated(done):
            link = self._begun(mode)
            try:
                yield link
                link.run("COMMIT")
            except (DatabaseError, RegraftError):
                self._roll_back(link)
                raise
            except BaseException:  # half an answer may still be on its way
                _close_all([link])
                raise
            self._idle.append(link)

    @contextmanager
    def no_transaction(self, *, done: str) -> Generator[Connection]:
        """Yield a connection on which every statement stands for itself, and which ends with the block.

        It is a new one: PostgreSQL counts what a connection writes about a second later, and what ANALYZE
        finds on that same connection is wrong until then.

        Args:
            done: What the block does to the gallery, as in "cannot be tidied".

        Raises:
            StoreError: The server cannot be reached, or refused what the block asked of it.
        """
        with self._translated(done):
            link = _connected(self.address)
            try:
                yield link
            finally:
                _close_all([link])

    def close(self) -> None:
        """Close the connections that are not in use."""
        _close_all(self._idle)

    def _begun(self, mode: str) -> Connection:
        """A connection in a new transaction. One whose server was started anew meanwhile is passed over."""
        while self._idle:
            link = self._idle.pop()
            try:
                link.run(mode)
            except (DatabaseError, InterfaceError, OSError):
                _close_all([link])
            else:
                return link
        link = _connected(self.address)
        link.run(mode)
        return link

    def _roll_back(self, link: Connection) -> None:
        try:
            link.run("ROLLBACK")
        except (DatabaseError, InterfaceError, OSError):  # the server rolls back when the connection ends
            _close_all([link])
        else:
            self._idle.append(link)

    @contextmanager
    def _translated(self, done: str) -> Generator[None]:
        try:
            yield
        except DatabaseError as error:
            code, words = _said(error)
            raise StoreError(
                f"Gallery {self.address} cannot be {done}: {words}.",
                hint=HINTS.get(code, "Try again; what was acknowledged before is kept."),
            ) from error
        except (InterfaceError, OSError) as error:
            raise StoreError(
                f"Gallery {self.address} cannot be {done}: {error}.",
                hint="Is the server running, and is this its address?",
            ) from error


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def code_of(error: BaseException | None) -> str | None:
    """The state of a server's error; `None` for any other."""
    return _said(error)[0] if isinstance(error, DatabaseError) else None


def _said(error: DatabaseError) -> tuple[str, str]:
    """The state and the words of an error; the driver hands over the fields of the server's message."""
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return fields.get("C", ""), fields.get("M", str(error))


def _checked_name(gallery: str) -> str:
    longest = LONGEST_IDENTIFIER - len(SCHEMA_PREFIX)
    if len(gallery.encode()) > longest or "\0" in gallery:
        raise StoreError(
            f"Gallery name {gallery!r} cannot be a schema; expected at most {longest} bytes of text."
        )
    return gallery


def _connected(address: Address) -> Connection:
    link = _socket_to(address)
    link.settimeout(None)  # the limit was for connecting: a statement may take as long as it needs
    try:
        return Connection(
            address.user,
            host=address.host,
            database=address.database,
            password=address.password,
            sock=link,
            ssl_context=_ssl_context(address),
            application_name="regraft",
        )
    except InterfaceError as error:
        link.close()
        raise _refusal(error) from None
    except BaseException:
        link.close()
        raise


def _refusal(error: BaseException) -> BaseException:
    """Why a connection failed: a server that refuses a client hangs up, and the driver trips over that."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, DatabaseError):
        inner = inner.__context__
    return inner or error


def _socket_to(address: Address) -> socket.socket:
    if not address.host.startswith("/"):
        return socket.create_connection((address.host, address.port), CONNECT_WAIT_S)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(CONNECT_WAIT_S)
    try:
        link.connect(f"{address.host}/.s.PGSQL.{address.port}")
    except OSError:
        link.close()
        raise
    return link


def _ssl_context(address: Address) -> ssl.SSLContext | bool | None:
    """What the driver takes for a mode: `None` prefers encryption, `True` insists on it, neither verifies."""
    if address.host.startswith("/") or address.ssl_mode == "disable":
        return False
    if address.ssl_mode == "verify-full":
        return ssl.create_default_context()
    return True if address.ssl_mode == "require" else None


def _close_all(links: list[Connection]) -> None:
    while links:
        with suppress(InterfaceError, OSError):  # it is closed, or its server has gone
            links.pop().close()
