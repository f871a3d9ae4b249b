"""The elements of an LPM_TRIE: prefixes of bits, of which the longest that fits is found.

A key is the length of the prefix in bits, of 32 bits, and the bits; those behind the prefix do not
count.

Source: kernel/bpf/lpm_trie.c.

Example:
    >>> trie = make_trie(MapAttributes(MapType.LPM_TRIE, 8, 1, 4))
    >>> trie.update(bytes([8, 0, 0, 0, 10, 0, 0, 0]), b"A", UpdateFlag.ANY, no_fds)
    >>> trie.lookup(bytes([32, 0, 0, 0, 10, 1, 2, 3]))
    b'A'
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOSPC

from bpfseal.errors import KernelError
from bpfseal.kernel.model.element_rules import (
    Elements,
    Resolve,
    no_such_key,
    not_supported,
    require_known,
)
from bpfseal.kernel.model.map_facts import UpdateFlag
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.refusal import refusal

_SOURCE = "kernel/bpf/lpm_trie.c"
_LENGTH_SIZE = 4


def make_trie(attributes: MapAttributes) -> Elements:
    """Return the elements of a new LPM_TRIE."""
    return _TrieElements(attributes)


class _TrieElements:
    """Keys as they were given and values, by the bits of their prefix as text."""

    def __init__(self, attributes: MapAttributes) -> None:
        self._attributes = attributes
        self._max_length = 8 * (attributes.key_size - _LENGTH_SIZE)
        self._nodes: dict[str, tuple[bytes, bytes]] = {}

    def _prefix(self, key: bytes) -> str | None:
        """Return the bits of a prefix, ``None`` for one that is longer than a key can be."""
        length = int.from_bytes(key[:_LENGTH_SIZE], "little")
        bits = "".join(f"{byte:08b}" for byte in key[_LENGTH_SIZE:])
        return bits[:length] if length <= self._max_length else None

    def lookup(self, key: bytes) -> bytes | None:
        prefix = self._prefix(key)
        if prefix is None:
            return None
        ends = range(len(prefix), -1, -1)
        found = next((prefix[:end] for end in ends if prefix[:end] in self._nodes), None)
        return self._nodes[found][1] if found is not None else None

    def update(self, key: bytes, value: bytes, flags: int, _resolve: Resolve) -> None:
        source = f"{_SOURCE} trie_update_elem"
        require_known(flags)
        prefix = self._prefix(key)
        if prefix is None:
            raise _too_long("trie_update_elem")
        is_known = prefix in self._nodes
        if is_known and flags == UpdateFlag.NOEXIST:
            raise refusal(EEXIST, source, "BPF_NOEXIST for a prefix that exists")
        if not is_known and flags == UpdateFlag.EXIST:
            raise refusal(ENOENT, source, "BPF_EXIST for a prefix that does not exist")
        if not is_known and len(self._nodes) >= self._attributes.max_entries:
            raise refusal(ENOSPC, source, "the map is full")
        self._nodes[prefix] = key, value

    def delete(self, key: bytes) -> None:
        prefix = self._prefix(key)
        if prefix is None:
            raise _too_long("trie_delete_elem")
        if self._nodes.pop(prefix, None) is None:
            raise no_such_key()

    def pop(self, _key: bytes) -> bytes | None:
        raise not_supported("lookup_and_delete", "an LPM_TRIE")

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the next key: longer prefixes come before those that they begin with."""
        order = sorted(self._nodes, key=lambda bits: f"{bits}2")
        prefix = self._prefix(key) if key is not None else None
        at = order.index(prefix) + 1 if prefix in self._nodes and prefix is not None else 0
        return self._nodes[order[at]][0] if at < len(order) else None

    def __len__(self) -> int:
        return len(self._nodes)

    def release(self) -> None:
        """Bytes refer to nothing."""


def _too_long(function: str) -> KernelError:
    return refusal(EINVAL, f"{_SOURCE} {function}", "the prefix is longer than the key")
