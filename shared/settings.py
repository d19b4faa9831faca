"""Every setting of the suite, read from the environment in this one place.

A field `embed_port` is set by the variable ``REFDESK_EMBED_PORT``. docs/configuration.md lists
them all; a test holds the two together.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import StartupError

ServiceName = Literal["embed", "rerank", "retrieve", "generate"]
# In the order in which they need each other.
SERVICES: tuple[ServiceName, ...] = ("embed", "rerank", "retrieve", "generate")
Precision = Literal["int8", "fp32"]
EmbedPrecision = Literal["auto", "int8", "fp32", "fp16", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
EmbedBackend = Literal["onnx", "sentence-transformers", "flag", "remote"]
RerankBackend = Literal[
    "late-interaction", "cross-encoder", "sentence-transformers", "flag", "remote"
]
AuditText = Literal["hash", "redacted", "full"]
RerankRemoteApi = Literal["cohere", "jina", "jina-logits", "tei"]
Port = Annotated[int, Field(ge=1, le=65535)]
Threads = Annotated[int, Field(ge=1, le=256)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


def absolute(path: Path) -> Path:
    """`path` with a leading ``~`` expanded, from the root.

    Raises StartupError where the machine knows no such home folder.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise StartupError(f"{path}: there is no home folder that its ~ could stand for") from None


def _sendable(key: SecretStr | None) -> SecretStr | None:
    """A key as it was given; None for an empty one, which stands for none."""
    secret = key.get_secret_value() if key else ""
    # Anything else can't be sent as a header, and the HTTP library's error would show the key.
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ValueError("a key is made of visible ASCII characters alone, without white space")
    return key if secret else None


Key = Annotated[SecretStr | None, AfterValidator(_sendable)]


class Settings(BaseSettings):
    """What an operator can set. Frozen: a process reads it once, when it starts."""

    model_config = SettingsConfigDict(
        env_prefix="REFDESK_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback needs keys")
    embed_port: Port = Field(8001, description="port of embed")
    rerank_port: Port = Field(8002, description="port of rerank")
    retrieve_port: Port = Field(8003, description="port of retrieve")
    generate_port: Port = Field(8004, description="port of generate")
    embed_url: str = Field("", description="where embed is reached; empty = loopback, its port")
    rerank_url: str = Field("", description="where rerank is reached; empty = loopback, its port")
    retrieve_url: str = Field("", description="where retrieve is reached; empty = loopback")
    generate_url: str = Field("", description="where generate is reached; empty = loopback")

    data_dir: Path = Field(Path("~/.refdesk/data"), description="corpora and built model graphs")
    models_dir: Path = Field(Path("~/.refdesk/models"), description="the model store")
    hub_url: str = Field("https://huggingface.co", description="the model hub for hub ids")
    hub_token: Key = Field(None, description="token for that hub")

    keys_file: Path | None = Field(None, description="JSON file of hashed API keys")
    api_key: Key = Field(None, description="key that the command line sends")
    service_key: Key = Field(
        None, description="key that services use for calls that no caller started"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["json", "console"] = Field("json", description="shape of log lines")
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="largest request body")
    body_pause_s: Seconds = Field(60.0, description="longest pause within a request's body")
    max_upload_mb: int = Field(512, ge=1, description="largest upload of documents, MiB")
    max_restore_mb: int = Field(65_536, ge=1, description="largest backup to restore, MiB")
    drain_s: int = Field(
        3, ge=0, le=3600, description="seconds that requests in flight get when a service stops"
    )
    deadline_ms: int = Field(
        120_000, ge=1, description="time for a request whose caller sends no x-deadline-ms"
    )

    embed_model: str = Field("all-MiniLM-L6-v2", description="model that embed serves by default")
    embed_backend: EmbedBackend = Field("onnx", description="what runs it")
    embed_models: Annotated[dict[str, EmbedBackend | None], NoDecode] = Field(
        {}, description="comma-separated further models, NAME or NAME=BACKEND"
    )
    embed_memory_mb: int = Field(0, ge=0, description="memory for loaded models, MiB; 0 = no limit")
    embed_precision: EmbedPrecision = Field(
        "auto", description="numbers it computes with; auto = the fastest that are good enough"
    )
    embed_device: Device = Field("auto", description="where PyTorch runs it; auto = GPU if any")
    embed_remote_url: str = Field("", description="API base URL of the server, for `remote`")
    embed_remote_key: Key = Field(None, description="API key there")
    embed_threads: Threads = Field(2, description="inferences of embed that run side by side")
    embed_batch_tokens: int = Field(
        512, ge=256, description="padded tokens in one batch, at most; a GPU wants 16384 or more"
    )
    embed_queue_tokens: int = Field(131_072, ge=1, description="tokens that may wait; more get 429")
    embed_cache_mb: int = Field(32, ge=0, description="memory for cached vectors, MiB; 0 = none")
    embed_cache_dir: Path | None = Field(None, description="folder for cached vectors on disk")
    embed_cache_disk_mb: int = Field(1024, ge=16, description="disk for cached vectors, MiB")

    rerank_model: str = Field("all-MiniLM-L6-v2", description="model that rerank serves")
    rerank_backend: RerankBackend = Field("late-interaction", description="what runs it")
    rerank_remote_url: str = Field("", description="base URL of the rerank server, for `remote`")
    rerank_remote_key: Key = Field(None, description="API key there")
    rerank_remote_api: RerankRemoteApi = Field(
        "jina", description="what it speaks; jina is also what vLLM and refdesk do"
    )
    rerank_precision: Precision = Field("int8", description="weights of the ONNX graph")
    rerank_threads: Threads = Field(2, description="inferences of rerank that run side by side")
    rerank_batch_tokens: int = Field(
        2048, ge=256, description="padded tokens in one batch, at most"
    )
    rerank_queue_tokens: int = Field(
        131_072, ge=1, description="tokens that may wait; more get 429"
    )
    rerank_cache_mb: int = Field(64, ge=0, description="memory for cached token vectors, MiB")
    rerank_fill_at_ingest: bool = Field(
        False, description="retrieve has rerank read new chunks into its cache at once"
    )

    parse_workers: int = Field(
        0, ge=0, le=64, description="processes that read files; 0 = a core's each, at most 4"
    )
    parse_seconds: int = Field(60, ge=1, le=3600, description="seconds for a file, at most")
    parse_memory_mb: int = Field(
        1024, ge=256, le=65_536, description="memory of such a process, MiB"
    )
    max_file_mb: int = Field(64, ge=1, le=4096, description="largest file, MiB")
    chunk_tokens: int = Field(
        256, ge=32, le=8192, description="tokens of a chunk as the embedder sees it, at most"
    )
    chunk_overlap: int = Field(32, ge=0, le=1024, description="tokens shared by two neighbours")
    dense_device: Device = Field(
        "auto", description="where vectors are searched; auto = GPU if any"
    )

    catalogue_url: SecretStr = Field(
        SecretStr(""), description="PostgreSQL of jobs; empty = a file in the data folder"
    )
    job_workers: int = Field(2, ge=1, le=64, description="jobs that run side by side")
    jobs_waiting_mb: int = Field(4096, ge=1, description="payloads that may wait, MiB")
    job_history_days: int = Field(30, ge=0, description="days that jobs are kept once over")

    store: Literal["local", "qdrant"] = Field("local", description="engine of new corpora")
    qdrant_url: str = Field("", description="http(s):// address of Qdrant; empty = none is used")
    qdrant_api_key: Key = Field(None, description="API key there")
    qdrant_grpc: bool = Field(False, description="points and searches over gRPC")
    qdrant_grpc_port: Port = Field(6334, description="port of Qdrant's gRPC")
    qdrant_timeout_s: int = Field(30, ge=1, description="time for one call of Qdrant, seconds")
    qdrant_prefix: str = Field(
        "refdesk",
        pattern="^[A-Za-z0-9-]{1,40}$",
        description="what names of collections begin with",
    )
    qdrant_shards: int = Field(1, ge=1, description="shards of a new collection")
    qdrant_replicas: int = Field(1, ge=1, description="copies of each shard")
    qdrant_write_consistency: int = Field(
        1, ge=1, description="copies that must have a write before it counts"
    )
    qdrant_on_disk: bool = Field(False, description="vectors on disk, memory as a cache")
    qdrant_quantised: bool = Field(False, description="search vectors as bytes kept in memory")

    generate_database_url: SecretStr = Field(
        SecretStr(""), description="PostgreSQL of the audit trail; empty = a file"
    )
    audit: Literal["required", "off"] = Field(
        "required", description="whether an answer that can't be put on record is kept back"
    )
    audit_text: AuditText = Field("hash", description="how texts are kept in the audit trail")
    answer_cache: Literal["off", "exact", "semantic"] = Field(
        "exact", description="whether verified answers are given again, and to what"
    )
    answer_cache_mb: int = Field(32, ge=1, description="memory for cached answers, MiB")
    answer_cache_seconds: int = Field(3600, ge=1, description="seconds that an answer is kept")
    answer_cache_similarity: float = Field(
        0.9, gt=0, le=1, description="cosine of questions that ask alike, for `semantic`"
    )
    default_corpora: Annotated[list[str], NoDecode] = Field(
        [], description="comma-separated corpora a chat searches if it names none; empty = all"
    )
    source_events: bool = Field(
        False, description="whether streamed chats tell Open WebUI of their passages"
    )
    llm_model: str = Field("smollm2-135m-instruct", description="embedded LLM of tier reasoning")
    llm_threads: Threads = Field(2, description="threads of the embedded LLM")
    llm_context: int = Field(2048, ge=512, description="context window of the embedded LLM, tokens")
    utility_url: str = Field("", description="OpenAI-compatible base URL for tier utility")
    utility_model: str = Field("", description="model name there")
    utility_key: Key = Field(None, description="API key there")
    reasoning_url: str = Field("", description="OpenAI-compatible base URL for tier reasoning")
    reasoning_model: str = Field("", description="model name there")
    reasoning_key: Key = Field(None, description="API key there")
    model_connect_s: Seconds = Field(2.0, description="for connecting to a model server, seconds")
    model_first_token_s: Seconds = Field(30.0, description="until its first token, seconds")
    model_next_token_s: Seconds = Field(10.0, description="between two tokens of it, seconds")
    model_draft_s: Seconds = Field(60.0, description="for a whole draft of it, seconds")
    model_pause_s: Seconds = Field(
        10.0, description="for which a model server is not asked that failed too often, seconds"
    )
    answer_seconds: int = Field(
        300, ge=1, le=86_400, description="longest time for an answer, whatever x-deadline-ms says"
    )
    answers_at_once: int = Field(512, ge=1, description="answers that generate works on at once")
    answers_waiting: int = Field(256, ge=0, description="more that may wait; the rest get 503")
    answers_per_key: int = Field(
        0, ge=0, description="answers at once of one API key; 0 = half, where there are several"
    )
    grounding_url: str = Field("", description="base URL of a server that judges entailment")
    grounding_key: Key = Field(None, description="API key there")
    grounding_label: str = Field("entailment", description="its label for what a passage entails")
    policy_file: Path | None = Field(None, description="YAML file of the routing policy")
    model_keys: Annotated[dict[str, Key], NoDecode] = Field(
        {}, description="comma-separated NAME=KEY for the policy's models"
    )

    @field_validator("default_corpora", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip()]
        return value

    @field_validator("embed_models", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = (part.partition("=") for part in value.split(",") if part.strip())
        found = {name.strip(): backend.strip() if given else None for name, given, backend in pairs}
        if "" in found:
            raise ValueError("a model has no name")
        return found

    @field_validator("model_keys", mode="before")
    @classmethod
    def _keys_by_model(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(name.strip() and key.strip() for name, _, key in pairs):
            raise ValueError("each must be NAME=KEY: a model of the policy and its key")
        return {name.strip(): key.strip() for name, _, key in pairs}

    @field_validator("embed_cache_dir", "policy_file", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return value or None

    @field_validator("data_dir", "models_dir", "keys_file", "embed_cache_dir", "policy_file")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return absolute(value) if value is not None else None

    @property
    def built_dir(self) -> Path:
        """Where graphs built from model weights are kept."""
        return self.data_dir / "built"

    @property
    def corpora_dir(self) -> Path:
        """Where the corpora's databases and indexes are kept."""
        return self.data_dir / "corpora"

    @property
    def transfers_dir(self) -> Path:
        """Where backups are made and restored; nothing in it is kept."""
        return self.data_dir / "transfers"

    def port(self, service: ServiceName) -> int:
        """The port that `service` listens on."""
        ports: dict[ServiceName, int] = {
            "embed": self.embed_port,
            "rerank": self.rerank_port,
            "retrieve": self.retrieve_port,
            "generate": self.generate_port,
        }
        return ports[service]

    def url(self, service: ServiceName) -> str:
        """The base URL that clients reach `service` at, without a trailing slash."""
        urls: dict[ServiceName, str] = {
            "embed": self.embed_url,
            "rerank": self.rerank_url,
            "retrieve": self.retrieve_url,
            "generate": self.generate_url,
        }
        return urls[service].rstrip("/") or f"http://127.0.0.1:{self.port(service)}"


def load_settings() -> Settings:
    """Read the environment. Raises StartupError naming each variable that has a bad value."""
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"REFDESK_{'_'.join(str(part) for part in fault['loc']).upper()}: "
            + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()
        )
        raise StartupError(f"a setting is wrong: {faults}") from None
