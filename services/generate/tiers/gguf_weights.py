"""The small language model's weights in the form that the processor reads fastest.

llama.cpp multiplies matrices of some formats with kernels that keep many numbers in registers, and
has none for Q4_1, in which the default model comes: of 8 bits (Q8_0) the same model reads a prompt
in about two thirds of the time. 8 bits hold what 4 bits said, so nothing of the model is lost that
was there; the file is half as large again.
"""

import tempfile
from pathlib import Path

from shared.errors import StartupError
from shared.modelstore.derived import derived

_BUILDER = 1  # raise it whenever other bytes are made of the same file


def fastest_weights(path: Path, sha256: str, folder: Path) -> Path:
    """The file to load for the GGUF model at `path`: itself, or one made of it in `folder`.

    sha256: of the file, in hex. Raises StartupError where it is no GGUF file, or the new one can't
    be kept.
    """
    try:
        stem = f"{sha256[:12]}-q8_0-v{_BUILDER}"
        return derived(folder, stem, ".gguf", lambda: _rewritten(path))
    except _NothingToGainError:
        return path


class _NothingToGainError(Exception):
    """The model has no matrix that is read slowly."""


def _rewritten(source: Path) -> bytes:
    """The same model with its matrices of Q4_1 in Q8_0."""
    # Imported here: reading the file takes seconds, and is done once.
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    try:
        reader = GGUFReader(source)
    except (ValueError, KeyError, IndexError):
        raise StartupError(
            f"{source} is damaged or not a GGUF model; check it with `refdesk models verify`"
        ) from None
    if all(one.tensor_type != GGMLQuantizationType.Q4_1 for one in reader.tensors):
        raise _NothingToGainError
    with tempfile.TemporaryDirectory() as folder:  # the writer knows files alone
        path = Path(folder) / "model.gguf"
        writer = GGUFWriter(path, reader.fields["general.architecture"].contents())
        for name, value in reader.fields.items():
            if name.startswith("GGUF.") or name == "general.architecture":
                continue  # written by the writer itself
            kinds = value.types
            inner = kinds[-1] if kinds[0] == GGUFValueType.ARRAY else None
            content = value.contents()
            if name == "general.file_type":
                content = int(LlamaFileType.MOSTLY_Q8_0)
            writer.add_key_value(name, content, kinds[0], inner)
        eight = GGMLQuantizationType.Q8_0
        for tensor in reader.tensors:
            if tensor.tensor_type == GGMLQuantizationType.Q4_1:  # both have blocks of 32 numbers
                numbers = dequantize(tensor.data, tensor.tensor_type)
                writer.add_tensor(tensor.name, quantize(numbers, eight), raw_dtype=eight)
            else:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()
