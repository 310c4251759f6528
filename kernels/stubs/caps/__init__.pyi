"""What the code of a session may do outside its process. Made by `python -m capsule.broker.stubs`."""

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")
Body: TypeAlias = bytes | bytearray | memoryview | Iterable[bytes]

class CapabilityError(Exception):
    code: str
    message: str
    hint: str
    retryable: bool
    details: dict[str, Any]

class CapabilityDenied(CapabilityError, PermissionError): ...
class CapabilityTimeout(CapabilityError, TimeoutError): ...
class CapabilityFailed(CapabilityError): ...

class Response(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...

class Bytes(bytes):
    def __await__(self) -> Generator[Any, None, bytes]: ...

class Nothing:
    def __await__(self) -> Generator[Any, None, None]: ...

class Stream(Generic[T]):
    def __iter__(self) -> Iterator[T]: ...
    def __aiter__(self) -> AsyncIterator[T]: ...

def granted() -> list[dict[str, Any]]: ...

class FilesReadOperation:
    def __call__(self, path: str, offset: int = ..., length: int | None = ...) -> Bytes: ...
    def stream(self, path: str, offset: int = ..., length: int | None = ...) -> Stream[bytes]: ...

class FilesWrite(Response):
    size: int
    def __await__(self) -> Generator[Any, None, FilesWrite]: ...

class FilesWriteOperation:
    def __call__(self, path: str, exist_ok: bool = ..., sync: bool = ..., *, data: Body = ...) -> FilesWrite: ...

class FilesAppend(Response):
    size: int
    def __await__(self) -> Generator[Any, None, FilesAppend]: ...

class FilesAppendOperation:
    def __call__(self, path: str, sync: bool = ..., *, data: Body = ...) -> FilesAppend: ...

class FilesList(Response):
    entries: list[dict[str, Any]]
    left_out: int
    def __await__(self) -> Generator[Any, None, FilesList]: ...

class FilesListOperation:
    def __call__(self, path: str) -> FilesList: ...

class FilesStat(Response):
    kind: Literal['file', 'directory', 'link', 'other']
    size: int
    modified: float
    links: int
    def __await__(self) -> Generator[Any, None, FilesStat]: ...

class FilesStatOperation:
    def __call__(self, path: str) -> FilesStat: ...

class FilesMkdirOperation:
    def __call__(self, path: str, parents: bool = ..., exist_ok: bool = ...) -> Nothing: ...

class FilesMoveOperation:
    def __call__(self, source: str, target: str, overwrite: bool = ...) -> Nothing: ...

class FilesRemoveOperation:
    def __call__(self, path: str, recursive: bool = ..., missing_ok: bool = ...) -> Nothing: ...

class FilesGlob(Response):
    paths: list[str]
    left_out: int
    def __await__(self) -> Generator[Any, None, FilesGlob]: ...

class FilesGlobOperation:
    def __call__(self, path: str, pattern: str) -> FilesGlob: ...

class FilesWatch(Response):
    events: int
    lost: int
    data: bytes
    text: str
    def json(self) -> Any: ...
    def __await__(self) -> Generator[Any, None, FilesWatch]: ...

class FilesWatchOperation:
    def __call__(self, path: str, recursive: bool = ..., seconds: float | None = ..., count: int | None = ...) -> FilesWatch: ...
    def stream(self, path: str, recursive: bool = ..., seconds: float | None = ..., count: int | None = ...) -> Stream[bytes]: ...

class Files:
    read: FilesReadOperation
    write: FilesWriteOperation
    append: FilesAppendOperation
    list: FilesListOperation
    stat: FilesStatOperation
    mkdir: FilesMkdirOperation
    move: FilesMoveOperation
    remove: FilesRemoveOperation
    glob: FilesGlobOperation
    watch: FilesWatchOperation

class HttpFetch(Response):
    status: int
    reason: str
    url: str
    http_version: str
    headers: dict[str, str]
    set_cookie: list[str]
    redirects: list[str]
    size: int
    transferred: int
    elapsed: float
    data: bytes
    text: str
    def json(self) -> Any: ...
    def __await__(self) -> Generator[Any, None, HttpFetch]: ...

class HttpFetchOperation:
    def __call__(self, url: str, method: str = ..., headers: dict[str, str] = ..., params: dict[str, str | list[str]] = ..., timeout: float | None = ..., follow_redirects: bool = ..., raise_for_status: bool = ..., *, data: Body = ...) -> HttpFetch: ...
    def stream(self, url: str, method: str = ..., headers: dict[str, str] = ..., params: dict[str, str | list[str]] = ..., timeout: float | None = ..., follow_redirects: bool = ..., raise_for_status: bool = ..., *, data: Body = ...) -> Stream[bytes]: ...

class HttpStream(Response):
    status: int
    reason: str
    url: str
    http_version: str
    headers: dict[str, str]
    set_cookie: list[str]
    redirects: list[str]
    size: int
    transferred: int
    elapsed: float
    data: bytes
    text: str
    def json(self) -> Any: ...
    def __await__(self) -> Generator[Any, None, HttpStream]: ...

class HttpStreamOperation:
    def __call__(self, url: str, method: str = ..., headers: dict[str, str] = ..., params: dict[str, str | list[str]] = ..., timeout: float | None = ..., follow_redirects: bool = ..., raise_for_status: bool = ..., *, data: Body = ...) -> HttpStream: ...
    def stream(self, url: str, method: str = ..., headers: dict[str, str] = ..., params: dict[str, str | list[str]] = ..., timeout: float | None = ..., follow_redirects: bool = ..., raise_for_status: bool = ..., *, data: Body = ...) -> Stream[bytes]: ...

class Http:
    fetch: HttpFetchOperation
    stream: HttpStreamOperation

class ShellRun(Response):
    returncode: int
    signal: str
    exceeded: str
    duration: float
    cpu_seconds: float
    max_rss_bytes: int
    stdout_bytes: int
    stderr_bytes: int
    stdout_dropped: int
    stderr_dropped: int
    stdout: bytes
    stderr: bytes
    def __await__(self) -> Generator[Any, None, ShellRun]: ...

class ShellRunOperation:
    def __call__(self, args: list[str] | str, cwd: str = ..., env: dict[str, str] = ..., timeout: float | None = ..., *, data: Body = ...) -> ShellRun: ...
    def stream(self, args: list[str] | str, cwd: str = ..., env: dict[str, str] = ..., timeout: float | None = ..., *, data: Body = ...) -> Stream[tuple[str, bytes]]: ...

class Shell:
    run: ShellRunOperation

class SystemTime(Response):
    time: float
    monotonic: float
    iso: str
    def __await__(self) -> Generator[Any, None, SystemTime]: ...

class SystemTimeOperation:
    def __call__(self) -> SystemTime: ...

class SystemEnv(Response):
    variables: dict[str, str]
    def __await__(self) -> Generator[Any, None, SystemEnv]: ...

class SystemEnvOperation:
    def __call__(self, names: list[str] = ...) -> SystemEnv: ...

class SystemUsage(Response):
    processes: int
    threads: int
    open_files: int
    memory_bytes: int
    cpu_seconds: float
    def __await__(self) -> Generator[Any, None, SystemUsage]: ...

class SystemUsageOperation:
    def __call__(self) -> SystemUsage: ...

class SystemSession(Response):
    session: str
    name: str
    principal: str
    environment: str
    execution: str
    pid: int
    def __await__(self) -> Generator[Any, None, SystemSession]: ...

class SystemSessionOperation:
    def __call__(self) -> SystemSession: ...

class System:
    time: SystemTimeOperation
    env: SystemEnvOperation
    usage: SystemUsageOperation
    session: SystemSessionOperation

class AskQuestionOperation:
    def __call__(self, prompt: str = ..., choices: list[Any] | None = ..., json_schema: dict[str, Any] | None = ..., timeout: float | None = ...) -> Any: ...

class Ask:
    question: AskQuestionOperation

files: Files
http: Http
shell: Shell
system: System
ask: Ask

class Caps:
    files: Files
    http: Http
    shell: Shell
    system: System
    ask: Ask

plain: Caps
