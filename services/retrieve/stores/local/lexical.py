"""The word index of a local corpus: BM25 by Tantivy, on disk, derived from the database.

The state of the index is named by its *stamp*: analyser, language, the folder's own random name and
the number of the last operation. The database keeps the stamp that belongs to it; an index with
another stamp, or with a damaged file, is not opened but built anew.
"""

import json
import math
import shutil
import struct
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tantivy import Document, Index, IndexWriter, Occur, Query, Schema, SchemaBuilder

from services.retrieve.stores.analysis import ANALYSER, analyser, prepare, terms
from shared.durable import atomic_write

Keys = NDArray[np.int64]

_BUILD = "build"  # holds the name of the build
_WRITER_BYTES = 15_000_000  # the least that Tantivy takes, and enough for one write
# For a build: 100,000 chunks become one segment, in less than half of the processor's time that
# merging many small ones takes, and are searched faster. Taken as it is filled, and given back.
_BUILD_BYTES = 200_000_000
# Looking up n keys takes as long as reading about 300 √n hits (100 to 50,000 of 100,000 chunks).
_HITS_PER_ROOT_KEY = 300
_MARGIN = 1.3  # so that one reading is mostly enough where the allowed are spread evenly
_FOOTER_MAGIC = 1337
_SEGMENT_FILES = ("fast", "fieldnorm", "idx", "pos", "store", "term")


class LexicalDamagedError(Exception):
    """The index on disk is absent, damaged, or not the one that is asked for: build it anew."""


class LexicalIndex:
    """An open word index. Searches may run at any time; changes must follow one another."""

    def __init__(self, index: Index, schema: Schema, language: str, folder: Path | None) -> None:
        """Use `LexicalIndex.open` or `LexicalIndex.build`."""
        self._index = index
        self._schema = schema
        self._folder = folder
        self._language = language
        self._analyser = analyser(language)
        self._prefix = _prefix(language, folder)
        self.stamp = ""
        self._writer: IndexWriter | None = None
        index.register_tokenizer(ANALYSER, self._analyser)
        # Reloading on our word only: what is searched follows what is committed in the database.
        index.config_reader("manual")
        index.reload()

    def __len__(self) -> int:
        return int(self._index.searcher().num_docs)

    @classmethod
    def open(cls, folder: Path, language: str, stamp: str) -> "LexicalIndex":
        """Open the index in `folder`.

        Raises LexicalDamagedError unless it is sound and has `stamp`.
        """
        try:
            if stamp != f"{_prefix(language, folder)}:{_sound_opstamp(folder)}":
                raise LexicalDamagedError("it belongs to another state of the corpus")
            index = Index.open(str(folder))
            if index.schema != _schema():
                raise LexicalDamagedError("it has other fields")
            return cls(index, _schema(), language, folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise LexicalDamagedError(f"it can't be read ({error})") from error

    @classmethod
    def build(
        cls, folder: Path | None, language: str, bodies: Iterable[tuple[int, str]]
    ) -> "LexicalIndex":
        """Build the index of (key, body) from nothing, in place of what is in `folder`.

        Without a folder it is made in memory. Raises OSError or ValueError where the disk refuses.
        """
        schema = _schema()
        if folder is None:
            index = Index(schema)
        else:
            if folder.is_dir():
                shutil.rmtree(folder)
            else:
                folder.unlink(missing_ok=True)
            folder.mkdir()
            atomic_write(folder / _BUILD, uuid.uuid4().hex.encode())
            index = Index(schema, str(folder))
        built = cls(index, schema, language, folder)
        built._writer = index.writer(_BUILD_BYTES, num_threads=1)
        built.write([], bodies)
        built.close()  # the memory of the build; the next write makes itself a writer
        built.reload()
        return built

    def write(self, remove: Iterable[int], add: Iterable[tuple[int, str]]) -> str:
        """Remove chunks by key, add others by (key, body), commit; searched after `reload`.

        Gives the new stamp. Raises OSError or ValueError where the disk refuses; the index must
        then be closed and opened again, or built anew.
        """
        writer = self._writer
        if writer is None:
            writer = self._writer = self._index.writer(_WRITER_BYTES, num_threads=1)
        for key in remove:
            writer.delete_documents_by_term("key", key)
        for key, body in add:
            writer.add_document(Document(key=key, body=prepare(body, self._language)))
        self.stamp = f"{self._prefix}:{writer.commit()}"
        return self.stamp

    def reload(self) -> None:
        """Let searches from now on see the last commit."""
        self._index.reload()

    def close(self) -> None:
        """Let go of the files. Searches that are running end well."""
        if self._writer is not None:
            # Dropping it would do, but for a merge still running in a folder about to be removed.
            writer, self._writer = self._writer, None
            with suppress(ValueError):  # a writer that the disk has failed is dead already
                writer.wait_merging_threads()

    def search(
        self, query: str, limit: int, allowed: Keys | None = None
    ) -> list[tuple[int, float]]:
        """At most `limit` (key, BM25 score), best first, equal scores by ascending key.

        allowed: the keys that may be given, ascending; None for all. Within them there are as many
        as hold a term, with the scores that they have among all. Which of several with the score
        of the last one are given is the index's choice.
        """
        wanted = self._terms_query(query)
        if wanted is None or limit <= 0:
            return []
        if allowed is None:
            return self._hits(wanted, limit)
        return self._hits_within(wanted, limit, allowed)

    def scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """The BM25 scores of given chunks, 0.0 where no term matches; unknown keys are absent."""
        if not keys:
            return {}
        clauses = [(Occur.Must, self._keys_query(list(keys)))]
        wanted = self._terms_query(query)
        if wanted is not None:
            clauses.append((Occur.Should, wanted))
        return dict(self._hits(Query.boolean_query(clauses), len(keys)))

    def keys(self) -> Keys:
        """The keys of all chunks, ascending."""
        searcher = self._index.searcher()
        hits = searcher.search(Query.all_query(), searcher.num_docs or 1, count=False).hits
        found = searcher.fast_field_values("key", [address for _, address in hits])
        return np.sort(np.array(found, np.int64))

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order, as the index has them."""
        return terms(text, self._language, self._analyser)

    def _keys_query(self, keys: list[int]) -> Query:
        """One that matches these chunks, and adds nothing to their scores."""
        return Query.const_score_query(Query.term_set_query(self._schema, "key", keys), 0.0)

    def _terms_query(self, query: str) -> Query | None:
        # Built from terms, never parsed: a user's "AND", quotes or colons are words like any other.
        clauses = []
        for term, count in Counter(self.terms(query)).items():
            clause = Query.term_query(self._schema, "body", term, "freq")
            clauses.append(
                (Occur.Should, clause if count == 1 else Query.boost_query(clause, float(count)))
            )
        return Query.boolean_query(clauses) if clauses else None

    def _hits_within(self, terms: Query, limit: int, allowed: Keys) -> list[tuple[int, float]]:
        """Few allowed keys are looked up in the query; of many, enough hits are read to find them.

        Reading goes on, twice as far each time, until it would take longer than looking up.
        """
        if not len(allowed):
            return []
        wide = math.ceil(limit * max(1.0, len(self) / len(allowed)) * _MARGIN)
        while wide <= _HITS_PER_ROOT_KEY * math.sqrt(len(allowed)):
            keys, scores = self._read(terms, wide)
            places = np.searchsorted(allowed, keys)
            within = allowed[np.minimum(places, len(allowed) - 1)] == keys
            if len(keys) < wide or within.sum() >= limit:
                return _best_first(keys[within], scores[within])[:limit]
            wide *= 2
        keys_query = self._keys_query(allowed.tolist())
        return self._hits(
            Query.boolean_query([(Occur.Must, keys_query), (Occur.Must, terms)]), limit
        )

    def _hits(self, query: Query, limit: int) -> list[tuple[int, float]]:
        return _best_first(*self._read(query, limit))

    def _read(self, query: Query, limit: int) -> tuple[Keys, NDArray[np.float64]]:
        """The keys and scores of the best hits, best first, equal scores in no certain order."""
        searcher = self._index.searcher()
        hits = searcher.search(query, min(limit, searcher.num_docs or 1), count=False).hits
        keys = searcher.fast_field_values("key", [address for _, address in hits])
        return np.array(keys, np.int64), np.array([score for score, _ in hits], np.float64)


def _best_first(keys: Keys, scores: NDArray[np.float64]) -> list[tuple[int, float]]:
    order = np.lexsort((keys, -scores))
    return list(zip(keys[order].tolist(), scores[order].tolist(), strict=True))


def _schema() -> Schema:
    builder = SchemaBuilder()
    builder.add_integer_field("key", indexed=True, fast=True)
    builder.add_text_field("body", tokenizer_name=ANALYSER, index_option="freq")
    return builder.build()


def _prefix(language: str, folder: Path | None) -> str:
    """The part of the stamp that stays. An index in memory has a name that none on disk has."""
    build = (folder / _BUILD).read_text() if folder is not None else "memory"
    return f"{ANALYSER}:{language}:{build}"


def _sound_opstamp(folder: Path) -> int:
    """The number of the last operation, once every file of the index has been found sound.

    Tantivy ends each file with its CRC-32, but does not look at it when it opens one: a flipped bit
    would come up in some later search.
    """
    meta = json.loads((folder / "meta.json").read_bytes())
    for segment in meta["segments"]:
        name = segment["segment_id"].replace("-", "")
        files = [f"{name}.{kind}" for kind in _SEGMENT_FILES]
        if segment["deletes"] is not None:
            files.append(f"{name}.{segment['deletes']['opstamp']}.del")
        for file in files:
            if not _checksum_fits((folder / file).read_bytes()):
                raise LexicalDamagedError(f"{file} is damaged")
    return int(meta["opstamp"])


def _checksum_fits(data: bytes) -> bool:
    """Whether a Tantivy file's body has the CRC-32 that its footer tells.

    A file is body, footer (JSON), length of the footer (u32), magic number (u32), little-endian.
    """
    length, magic = struct.unpack("<II", data[-8:])
    footer = json.loads(data[-8 - length : -8])
    return magic == _FOOTER_MAGIC and bool(zlib.crc32(data[: -8 - length]) == footer["crc"])
