"""What a file is: by its suffix, checked against what it begins with."""

import re
from pathlib import PurePosixPath

from services.retrieve.stores.base import DocumentFormat

_SUFFIXES: dict[str, DocumentFormat] = {
    **dict.fromkeys(("txt", "text", "log", "rst", "adoc", "org", "tex", "srt", "vtt"), "text"),
    **dict.fromkeys(("md", "markdown", "mkd", "mdx"), "markdown"),
    **dict.fromkeys(("html", "htm", "xhtml"), "html"),
    **dict.fromkeys(("csv", "tsv"), "csv"),
    **dict.fromkeys(("json", "jsonl", "ndjson", "geojson", "ipynb"), "json"),
    "pdf": "pdf",
    **dict.fromkeys(("docx", "docm"), "docx"),
    **dict.fromkeys(("pptx", "pptm"), "pptx"),
    **dict.fromkeys(("xlsx", "xlsm"), "xlsx"),
    "eml": "eml",
}
# Names as they stand behind Markdown's fences.
_LANGUAGES = {
    **dict.fromkeys(("c", "h"), "c"),
    **dict.fromkeys(("cc", "cpp", "cxx", "hh", "hpp", "hxx"), "cpp"),
    **dict.fromkeys(("py", "pyi", "pyx"), "python"),
    **dict.fromkeys(("js", "mjs", "cjs", "jsx"), "javascript"),
    **dict.fromkeys(("ts", "mts", "cts", "tsx"), "typescript"),
    **dict.fromkeys(("sh", "bash", "zsh", "fish", "ksh"), "bash"),
    **dict.fromkeys(("kt", "kts"), "kotlin"),
    **dict.fromkeys(("ex", "exs"), "elixir"),
    **dict.fromkeys(("erl", "hrl"), "erlang"),
    **dict.fromkeys(("ml", "mli"), "ocaml"),
    **dict.fromkeys(("fs", "fsi", "fsx"), "fsharp"),
    **dict.fromkeys(("clj", "cljs", "cljc", "edn"), "clojure"),
    **dict.fromkeys(("lisp", "lsp", "cl", "el"), "lisp"),
    **dict.fromkeys(("f", "f90", "f95", "f03", "for"), "fortran"),
    **dict.fromkeys(("pl", "pm"), "perl"),
    **dict.fromkeys(("asm", "s"), "asm"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    **dict.fromkeys(("ini", "cfg", "conf", "properties", "env"), "ini"),
    **dict.fromkeys(("xml", "xsd", "xsl", "xslt", "wsdl"), "xml"),
    **dict.fromkeys(("css", "scss", "less"), "css"),
    **dict.fromkeys(("diff", "patch"), "diff"),
    **dict.fromkeys(("tf", "hcl"), "hcl"),
    **dict.fromkeys(("ps1", "psm1"), "powershell"),
    **dict.fromkeys(("graphql", "gql"), "graphql"),
    "rs": "rust",
    "go": "go",
    "java": "java",
    "scala": "scala",
    "swift": "swift",
    "rb": "ruby",
    "php": "php",
    "cs": "csharp",
    "vb": "vb",
    "lua": "lua",
    "r": "r",
    "jl": "julia",
    "hs": "haskell",
    "nim": "nim",
    "zig": "zig",
    "dart": "dart",
    "d": "d",
    "groovy": "groovy",
    "gradle": "groovy",
    "sql": "sql",
    "toml": "toml",
    "bat": "batch",
    "cmake": "cmake",
    "mk": "makefile",
    "proto": "protobuf",
    "vue": "vue",
    "svelte": "svelte",
    "pas": "pascal",
    "ada": "ada",
    "adb": "ada",
    "ads": "ada",
    "m": "objective-c",
    "mm": "objective-c",
    "v": "verilog",
    "vhd": "vhdl",
    "tcl": "tcl",
    "awk": "awk",
    "nix": "nix",
    "sol": "solidity",
    "cob": "cobol",
    "vim": "vim",
    "rkt": "racket",
}
_NAMES = {
    "dockerfile": "dockerfile",
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "cmakelists.txt": "cmake",
    "jenkinsfile": "groovy",
    "rakefile": "ruby",
    "gemfile": "ruby",
}
_PLAIN_NAMES = {"readme", "license", "licence", "copying", "changelog", "news", "authors", "notice"}
# What files of the old binary kind are told to be saved as.
_OLD: dict[str, DocumentFormat] = {
    **dict.fromkeys(("doc", "dot"), "docx"),
    **dict.fromkeys(("ppt", "pps"), "pptx"),
    **dict.fromkeys(("xls", "xlt"), "xlsx"),
}
# Formats whose files are text.
TEXTS: frozenset[DocumentFormat] = frozenset({"text", "markdown", "html", "csv", "json", "code"})
_OFFICE: dict[bytes, DocumentFormat] = {b"word/": "docx", b"ppt/": "pptx", b"xl/": "xlsx"}

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old office files, and new ones under a password
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# Files that are no text whatever their names say, by what they begin with.
_BINARY = (
    *(b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\x00asm"),
    *(b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"RIFF", b"OggS", b"ID3", b"fLaC"),
    *(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
    *(b"SQLite format 3\x00", b"PAR1"),
)
_PDF_WITHIN = 1024  # bytes: where a PDF's sign may stand, by the format's implementation notes
_HTML = re.compile(rb"\s*+(?:<!doctype\s+html|<html[\s>])", re.IGNORECASE)


def suffix_of(name: str) -> str:
    """The suffix of a file's name, small and without its dot."""
    return PurePosixPath(name.replace("\\", "/")).suffix[1:].lower()


def language_of(name: str) -> str:
    """The programming language of a file by its name; empty where it has none."""
    last = PurePosixPath(name.replace("\\", "/")).name.lower()
    return _NAMES.get(last) or _LANGUAGES.get(suffix_of(name), "")


def meant_by(name: str) -> DocumentFormat | None:
    """The format that a file's name says; None where it says none."""
    return _SUFFIXES.get(suffix_of(name))


def format_of(name: str, data: bytes) -> DocumentFormat | None:
    """The format that a file is to be read as; None where nothing can be read.

    The suffix says it, and the first bytes must agree: a PDF or an office file under another name
    is what it is, and a program named `.pdf` is nothing that can be read. A file without a known
    suffix is read where it is a PDF, an office file or an HTML page.
    """
    if data.startswith(OLE):
        # One of the old kind, or under a password, is told from others when it is read.
        named = _OLD.get(suffix_of(name)) or meant_by(name)
        return named if named in _OFFICE.values() else None
    if data.startswith(_BINARY):
        return None
    if data.startswith(ZIP):
        return next((one for sign, one in _OFFICE.items() if sign in data), None)
    if b"%PDF-" in data[:_PDF_WITHIN] and (
        suffix_of(name) == "pdf" or data.lstrip().startswith(b"%PDF-")
    ):
        return "pdf"
    if language_of(name):
        return "code"
    named = meant_by(name)
    if named in TEXTS or named == "eml":
        return named
    if named is None and not suffix_of(name):
        if _HTML.match(data[:_PDF_WITHIN]):
            return "html"
        if PurePosixPath(name).name.lower() in _PLAIN_NAMES:
            return "text"
    # Said to be a PDF or an office file, which it is not; empty ones are told so when read.
    return named if named is not None and not data else None
