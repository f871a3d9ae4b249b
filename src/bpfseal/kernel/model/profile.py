"""What differs between kernels, as data: one profile for each kernel that the model can be.

What a release makes of signatures is said once, in `bpfseal.release`; a profile adds what only a
kernel that runs needs to know. `FACTS` says where each fact is from.

Example:
    >>> "bpf_loader_verify_metadata" in KFUNC_SERIES.kfuncs
    True
    >>> PROFILES["7.3"].verifies_in_verifier, PROFILES["6.18"].verifies_in_verifier
    (True, False)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from errno import EBADMSG, EFAULT, ENOMEM
from types import MappingProxyType
from typing import Final

from bpfseal.bpf.uapi import Cmd, MapType, ProgType
from bpfseal.kernel.model import verifier_facts as facts
from bpfseal.kernel.model.verifier_facts import VerifierFacts
from bpfseal.loader.checks import VERIFY_KFUNC
from bpfseal.release import (
    MAX_SIGNATURE_SIZE,
    NAMED_ALGORITHMS,
    RELEASES,
    Answer,
    KernelCrypto,
    Release,
)
from bpfseal.scheme import Part

SLEEPABLE_MAPS: Final = frozenset(
    {
        MapType.HASH,
        MapType.LRU_HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.RINGBUF,
        MapType.USER_RINGBUF,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
        MapType.QUEUE,
        MapType.STACK,
        MapType.ARENA,
        MapType.INSN_ARRAY,
    }
)
"""Map types that a sleepable program may use (``check_map_prog_compatibility``)."""

_SLEEPABLE_MAPS_7_2: Final = SLEEPABLE_MAPS | {MapType.LPM_TRIE, MapType.PROG_ARRAY}

_NO_KFUNCS: Mapping[str, frozenset[ProgType]] = MappingProxyType({})
_MAY_SLEEP_OLD = (
    "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable"
)
_MAY_SLEEP = "Program of this type cannot be sleepable"


@dataclass(frozen=True, slots=True)
class Profile:
    """The facts of one kernel.

    Attributes:
        name: the name on the command line (``model:NAME``).
        description: one line for people.
        signed_parts: what a program's signature covers, in order; empty for a kernel that knows
            no signatures.
        max_signature_size: the largest signature in bytes (KMALLOC_MAX_CACHE_SIZE).
        empty_signature_errno: the answer to a signature of no bytes.
        bad_signature_pointer_errno: the answer to a signature that cannot be read.
        has_data_verification: CONFIG_SYSTEM_DATA_VERIFICATION; without it every signature whose
            keyring resolves is EOPNOTSUPP.
        digests: the digests that it can compute for a signature.
        algorithms: the signature algorithms that it can verify with.
        named_algorithms: the signature algorithms that its parsers know by name.
        has_exclusive_maps: ``struct bpf_map`` has `sha`: exclusive maps and map hashes.
        has_excl: whether ``struct bpf_map`` has the field ``excl`` behind ``sha``; ``some``: it
            depends on the update, so a kernel's BTF must say.
        has_bpf_keyring: there is a keyring ``.bpf`` for ``keyring_id`` -9.
        attr_size: bytes of ``union bpf_attr``.
        tag_digest: the digest whose first 8 bytes are a program's tag.
        map_info_size: bytes of ``struct bpf_map_info`` up to its last field.
        last_fields: the last field that a command knows, where it is not the last of its layout
            (`bpfseal.bpf.attr`).
        max_insns: the most instruction slots of a program (BPF_COMPLEXITY_LIMIT_INSNS).
        relocates_first: CO-RE is applied before the shape of a program is looked at, also for one
            without func_info and line_info.
        checks_all_fields: reserved fields and register numbers are checked in every insn, not only
            where a path leads.
        max_fd_array: the most entries of ``fd_array_cnt``, or ``None``.
        tags_first: in a BTF type tags come before other modifiers.
        btf_header_size: bytes of ``struct btf_header``.
        has_wait_list: a ``struct mutex`` has a list of who waits.
        possible_cpus: values in one element of a per-CPU map.
        pops_stacks: a STACK_TRACE can be looked up and deleted from in one call.
        sleepable_maps: the types of maps that a sleepable program may use.
        not_sleepable_log: what the verifier says of BPF_F_SLEEPABLE for a type that cannot sleep.
        kfuncs: the kfuncs that the kernel has, and the program types that may call each.
        verifier: what its verifier does.
    """

    name: str
    description: str
    signed_parts: tuple[Part, ...]
    max_signature_size: int = MAX_SIGNATURE_SIZE
    empty_signature_errno: int = EBADMSG
    bad_signature_pointer_errno: int = EFAULT
    has_data_verification: bool = True
    digests: frozenset[str] = frozenset()
    algorithms: frozenset[str] = frozenset({"rsa", "ecdsa"})
    named_algorithms: frozenset[str] = NAMED_ALGORITHMS
    has_exclusive_maps: bool = True
    has_excl: Answer = "no"
    has_bpf_keyring: bool = False
    attr_size: int = 168
    tag_digest: str = "sha256"
    map_info_size: int = 100
    last_fields: Mapping[Cmd, str] = field(default_factory=lambda: MappingProxyType({}))
    max_insns: int = 1_000_000
    relocates_first: bool = False
    checks_all_fields: bool = True
    max_fd_array: int | None = None
    tags_first: bool = True
    btf_header_size: int = 24
    has_wait_list: bool = True
    possible_cpus: int = 1
    pops_stacks: bool = True
    sleepable_maps: frozenset[MapType] = SLEEPABLE_MAPS
    not_sleepable_log: str = _MAY_SLEEP
    kfuncs: Mapping[str, frozenset[ProgType]] = field(default_factory=lambda: _NO_KFUNCS)
    verifier: VerifierFacts = facts.LINUX_7_2

    @property
    def crypto(self) -> KernelCrypto:
        """What it can compute for signatures, and what its parsers know."""
        return KernelCrypto(self.digests, self.algorithms, self.named_algorithms)

    @property
    def verifies_in_verifier(self) -> bool:
        """Signatures are verified by the verifier, once it has bound the maps of the load."""
        return "metadata" in self.signed_parts

    @property
    def covers_btf(self) -> bool:
        """Signatures cover the program's BTF, which is resolved before they are verified."""
        return "btf" in self.signed_parts

    @property
    def has_signatures(self) -> bool:
        """BPF_PROG_LOAD takes signatures."""
        return bool(self.signed_parts)


def _names(answers: Mapping[str, Answer]) -> frozenset[str]:
    """Return what at least some updates of a release have."""
    return frozenset(name for name, answer in answers.items() if answer != "no")


def _profile(
    release: Release,
    *,
    bad_pointer: int = EFAULT,
    may_sleep: str = _MAY_SLEEP,
    sleepable_maps: frozenset[MapType] = SLEEPABLE_MAPS,
    relocates_first: bool = False,
    checks_all_fields: bool = True,
    max_fd_array: int | None = None,
    tags_first: bool = True,
    btf_header_size: int = 24,
    has_wait_list: bool = True,
    kfuncs: Mapping[str, frozenset[ProgType]] = _NO_KFUNCS,
    verifier: VerifierFacts = facts.LINUX_7_2,
) -> Profile:
    """Return the profile of a release, whose latest updates count where updates differ."""
    return Profile(
        name=release.name,
        description=release.title,
        signed_parts=release.signed_parts,
        empty_signature_errno=release.empty_signature_errno,
        bad_signature_pointer_errno=bad_pointer,
        digests=_names(release.digests),
        algorithms=_names(release.algorithms),
        named_algorithms=release.named_algorithms,
        has_excl=release.has_excl,
        relocates_first=relocates_first,
        checks_all_fields=checks_all_fields,
        max_fd_array=max_fd_array,
        tags_first=tags_first,
        btf_header_size=btf_header_size,
        has_wait_list=has_wait_list,
        sleepable_maps=sleepable_maps,
        not_sleepable_log=may_sleep,
        kfuncs=kfuncs,
        verifier=verifier,
    )


KFUNC_SERIES: Final = _profile(
    RELEASES["kfunc"],
    tags_first=False,
    btf_header_size=32,
    has_wait_list=False,
    sleepable_maps=_SLEEPABLE_MAPS_7_2,
    kfuncs=MappingProxyType({VERIFY_KFUNC: frozenset({ProgType.SYSCALL})}),
)

_LINUX_6_18: Final = _profile(
    RELEASES["6.18"],
    bad_pointer=ENOMEM,
    may_sleep=_MAY_SLEEP_OLD,
    checks_all_fields=False,
    verifier=facts.LINUX_6_18,
)

_LINUX_7_3: Final = _profile(
    RELEASES["7.3"],
    sleepable_maps=_SLEEPABLE_MAPS_7_2,
    relocates_first=True,
    max_fd_array=4096,
    tags_first=False,
    btf_header_size=32,
    has_wait_list=False,
    verifier=facts.LINUX_7_3,
)

_LINUX_6_17: Final = Profile(
    name="6.17",
    description="Linux 6.17: no signed loaders",
    signed_parts=(),
    digests=_names(RELEASES["6.18"].digests),
    has_exclusive_maps=False,
    checks_all_fields=False,
    tag_digest="sha1",
    pops_stacks=False,
    attr_size=152,
    map_info_size=88,
    last_fields=MappingProxyType(
        {Cmd.MAP_CREATE: "map_token_fd", Cmd.PROG_LOAD: "fd_array_cnt"},
    ),
    not_sleepable_log=_MAY_SLEEP_OLD,
    verifier=facts.LINUX_6_17,
)

_ALL: Final = (
    KFUNC_SERIES,
    replace(
        _LINUX_6_17,
        name="6.12",
        description="Linux 6.12: no signed loaders, no fd_array_cnt",
        last_fields=MappingProxyType(
            {Cmd.MAP_CREATE: "map_token_fd", Cmd.PROG_LOAD: "prog_token_fd"},
        ),
        verifier=facts.LINUX_6_12,
    ),
    _LINUX_6_17,
    _LINUX_6_18,
    replace(
        _LINUX_6_18,
        name="6.18-unverified",
        description="Linux 6.18 without CONFIG_SYSTEM_DATA_VERIFICATION: no signature is good",
        has_data_verification=False,
        algorithms=frozenset({"rsa"}),
        has_excl="yes",
    ),
    _profile(
        RELEASES["6.19"],
        bad_pointer=ENOMEM,
        may_sleep=_MAY_SLEEP_OLD,
        checks_all_fields=False,
        verifier=facts.LINUX_6_19,
    ),
    _profile(
        RELEASES["7.0"],
        bad_pointer=ENOMEM,
        may_sleep=_MAY_SLEEP_OLD,
        checks_all_fields=False,
        verifier=facts.LINUX_7_0,
    ),
    _profile(RELEASES["7.1"], has_wait_list=False, verifier=facts.LINUX_7_1),
    _profile(
        RELEASES["7.2"],
        sleepable_maps=_SLEEPABLE_MAPS_7_2,
        tags_first=False,
        btf_header_size=32,
        has_wait_list=False,
    ),
    _LINUX_7_3,
    replace(
        _LINUX_7_3,
        name="7.3+bpf-keyring",
        description=RELEASES["7.3+bpf-keyring"].title,
        algorithms=_names(RELEASES["7.3+bpf-keyring"].algorithms),
        has_bpf_keyring=True,
    ),
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({each.name: each for each in _ALL})
"""All profiles by name: the seed's kernel, then the releases in their order."""

FACTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "signed_parts": "bpfseal.release",
        "max_signature_size": "bpfseal.release",
        "empty_signature_errno": "bpfseal.release",
        "bad_signature_pointer_errno": "measured: ENOMEM on 6.18.15, 6.18.44, 6.19.14 and 7.0.13,"
        " EFAULT on 7.1.13, 7.2.12 and 7.3.4",
        "has_data_verification": "measured on a 6.18.44 built without it: EOPNOTSUPP",
        "digests": "bpfseal.release; what some updates have is there",
        "algorithms": "bpfseal.release; measured on the 6.18.44 without verification: add_key of a"
        " certificate with a P-256 key is ENOENT",
        "named_algorithms": "bpfseal.release",
        "has_exclusive_maps": "measured: EINVAL on 6.12.107 and 6.17.13, taken from 6.18.15 on",
        "has_excl": "bpfseal.release",
        "has_bpf_keyring": "a patch after 7.3: keyring_id -9, sealed empty without the boot"
        " parameter bpf.keyring_unsealed=1",
        "attr_size": "measured: attributes at 152 and above are E2BIG on 6.12.107 and 6.17.13",
        "tag_digest": "kernel/bpf/core.c bpf_prog_calc_tag: SHA-1 up to 6.17, SHA-256 from 6.18 on,"
        " with excl_prog_hash",
        "map_info_size": "measured: a hash pointer at 88 is E2BIG on 6.12.107 and 6.17.13",
        "last_fields": "measured: excl_prog_hash is EINVAL on 6.12.107 and 6.17.13, fd_array_cnt"
        " on 6.12.107 (CHECK_ATTR)",
        "max_insns": "include/linux/bpf.h BPF_COMPLEXITY_LIMIT_INSNS",
        "relocates_first": "kernel/bpf/verifier.c bpf_check of 7.2.12 and of 7.3.4",
        "checks_all_fields": "measured: an EXIT with a register, which no path leads to, is taken"
        " on 6.12.117, 6.18.44, 6.19.14 and 7.0.13, EINVAL on 7.1.13, 7.2.12 and 7.3.4",
        "max_fd_array": "kernel/bpf/verifier.c of 7.3.4, MAX_FD_ARRAY_CNT",
        "tags_first": "measured: EINVAL on 6.12.117 to 7.1.13, taken on 7.2.12 and 7.3.4",
        "btf_header_size": "include/uapi/linux/btf.h: 32 with the section of layouts in 7.2.12 and"
        " 7.3.4, 24 before; measured: E2BIG on 6.18.44",
        "has_wait_list": "BTF of 6.18.44, 7.2.12 and 7.3.4: from 7.1.13 on it is first_waiter",
        "possible_cpus": "the model has one CPU",
        "pops_stacks": "measured: BPF_MAP_LOOKUP_AND_DELETE_ELEM is 524 on 6.12.117 and 6.17.13",
        "sleepable_maps": "kernel/bpf/verifier.c of 7.2.12 and 7.3.4; before 7.2 that of 6.18",
        "not_sleepable_log": "measured: one text to 7.0.13, another from 7.1.13 on",
        "kfuncs": "the series' kernel/bpf/helpers.c",
        "verifier": "bpfseal.kernel.model.verifier_facts, one source for each fact",
    }
)
"""Where each fact is from, by the name of its attribute."""
