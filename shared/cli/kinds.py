"""Which files of a folder are taken where nobody says: those of the kinds that the desk reads.

The desk judges each file by itself, by its name and by its bytes; this list only keeps pictures and
programs from being sent to it. A test holds the list to what the desk reads.
"""

from pathlib import PurePosixPath

_DOCUMENTS = """
adoc csv docm docx eml geojson htm html ipynb json log markdown md mdx mkd org pdf pptm pptx
rst srt tex text tsv txt vtt xhtml xlsm xlsx
"""
_CODE = """
ada adb ads asm awk bash bat c cc cfg cjs cl clj cljc cljs cmake cob conf cpp cs css cts cxx
d dart diff edn el env erl ex exs f f03 f90 f95 fish for fs fsi fsx go gql gradle graphql
groovy h hcl hh hpp hrl hs hxx ini java jl js jsx ksh kt kts less lisp lsp lua m mjs mk ml
mli mm mts nim nix pas patch php pl pm properties proto ps1 psm1 py pyi pyx r rb rkt rs s
scala scss sh sol sql svelte swift tcl tf toml ts tsx v vb vhd vim vue wsdl xml xsd xsl
xslt yaml yml zig zsh
"""
_NAMES = """
authors changelog cmakelists.txt copying dockerfile gemfile gnumakefile jenkinsfile licence
license makefile news notice rakefile readme
"""

ONE_PER_LINE = frozenset({".jsonl", ".ndjson"})  # a document in each line
ARCHIVE = ".zip"
SUFFIXES = frozenset(f".{suffix}" for suffix in (_DOCUMENTS + _CODE).split()) | ONE_PER_LINE
NAMES = frozenset(_NAMES.split())


def is_read(name: str) -> bool:
    """Whether a file of this name is of a kind that the desk reads."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES or path.name.lower() in NAMES
