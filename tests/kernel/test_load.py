"""`load()`: the steps of the skeleton as the seed leaves them, and what happens when one fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from errno import EACCES, EBADMSG, EINVAL, EPERM
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import call_helper, ldx_mem, mov64_imm
from bpfseal.bpf.uapi import Helper
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.errors import KernelError, UsageError, VerificationError
from bpfseal.kernel.load import HostValues, LoadedSkeleton, load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.verdict import Verdict
from bpfseal.kernel.protocol import (
    NO_POINTERS,
    Kernel,
    MapCreate,
    MapInfo,
    ProgInfo,
    ProgLoad,
    RunResult,
)
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES

from .support import (
    METADATA,
    create_map_body,
    key_pair,
    kfunc_call,
    load_by_hand,
    loader_insns,
    make_loader,
    sha256,
    sign,
    sign_loader,
    trusting_kernel,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "exectrace.bpf.o"


def steps(kernel: ModelKernel) -> list[str]:
    """Return the calls that user space made, without the closing ones."""
    return [call.name for call in kernel.trace if call.by == "user" and call.name != "close"]


class Failing:
    """A kernel that refuses one of its operations."""

    def __init__(self, below: ModelKernel, failing: str) -> None:
        self._below = below
        self._failing = failing

    def _call(self, name: str) -> None:
        if name == self._failing:
            raise KernelError(EPERM, "refused for the test")

    @property
    def description(self) -> str:
        return self._below.description

    def accepted_scheme(self) -> str | None:
        return self._below.accepted_scheme()

    def map_create(self, request: MapCreate) -> int:
        self._call("map_create")
        return self._below.map_create(request)

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        self._call("map_update")
        self._below.map_update(fd, key, value, flags)

    def map_freeze(self, fd: int) -> None:
        self._call("map_freeze")
        self._below.map_freeze(fd)

    def map_hash(self, fd: int) -> bytes:
        return self._below.map_hash(fd)

    def btf_load(self, data: bytes) -> int:
        self._call("btf_load")
        return self._below.btf_load(data)

    def prog_load(self, request: ProgLoad) -> int:
        self._call("prog_load")
        return self._below.prog_load(request)

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        self._call("prog_run")
        return self._below.prog_run(fd, ctx, pointers)

    def map_info(self, fd: int) -> MapInfo:
        return self._below.map_info(fd)

    def prog_info(self, fd: int) -> ProgInfo:
        return self._below.prog_info(fd)

    def close(self, fd: int) -> None:
        self._below.close(fd)


def test_the_steps_of_a_signed_loader_have_no_info_call() -> None:
    kernel = trusting_kernel()
    load_by_hand(kernel, sign_loader(make_loader()))
    assert steps(kernel) == [
        "map_create",
        "map_update",
        "map_freeze",
        "btf_load",
        "prog_load",
        "prog_run",
        "map_info",  # of the map that came up, not of the metadata
    ]
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED


def test_a_scheme_that_wants_the_map_hash_asks_for_it_after_the_freeze(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader = make_loader()
    with_hash = replace(loader.scheme, wants_map_hash=True)
    monkeypatch.setitem(SCHEMES, "kfunc", with_hash)
    kernel = trusting_kernel()
    load_by_hand(kernel, sign_loader(loader))
    assert steps(kernel)[2:4] == ["map_freeze", "map_hash"]


def test_an_unsigned_loader_is_not_exclusive_not_frozen_not_signed() -> None:
    kernel = trusting_kernel()
    insns = loader_insns([mov64_imm(0, 0)], body=create_map_body())
    load_by_hand(kernel, SignedLoader(make_loader(insns)))
    assert steps(kernel)[:-1] == ["map_create", "map_update", "btf_load", "prog_load", "prog_run"]
    [program] = kernel.programs
    assert program.verdict is Verdict.UNSIGNED


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_has_no_signature_is_loaded_only_when_that_is_asked_for(scheme: str) -> None:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    kernel = trusting_kernel()
    with pytest.raises(VerificationError, match=r"is not signed|nobody checks it"):
        load(kernel, SignedLoader(generate(obj, scheme)))
    assert steps(kernel) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_carries_signatures_is_never_loaded_without_them(scheme: str) -> None:
    """Also of scheme unsigned: nobody would look at a signature that lies beside it."""
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    signature = Signature(sign(b"whatever"), b"")
    kernel = trusting_kernel()
    with pytest.raises(VerificationError, match="carries signatures"):
        load(kernel, SignedLoader(generate(obj, scheme), (signature,)), unsigned=True)
    if not SCHEMES[scheme].signed_parts:
        with pytest.raises(VerificationError, match="nobody checks it"):
            load(kernel, SignedLoader(generate(obj, scheme), (signature,)))
    assert steps(kernel) == []


def test_the_fds_come_out_of_the_context_and_only_they_stay_open() -> None:
    kernel = trusting_kernel()
    before = kernel.open_fds
    skeleton = load_by_hand(kernel, sign_loader(make_loader()))
    assert (skeleton.map_fds, skeleton.prog_fds) == ({"counts": 6}, {})
    assert kernel.open_fds == before | {6: "map "}
    assert kernel.map(6).value_size == 8


@pytest.mark.parametrize(
    "step", ["map_create", "map_update", "map_freeze", "btf_load", "prog_load", "prog_run"]
)
def test_a_refusal_names_its_step_and_leaves_no_fd_open(step: str) -> None:
    model = trusting_kernel()
    kernel: Kernel = Failing(model, step)
    before = model.open_fds
    with pytest.raises(KernelError) as refused:
        load_by_hand(kernel, sign_loader(make_loader()))
    assert (refused.value.step, refused.value.errno) == (step, EPERM)
    assert str(refused.value).startswith(f"{step}: -EPERM")
    assert model.open_fds == before


class Answering(ModelKernel):
    """A kernel whose loader hands back other fds than it made: by number of the place."""

    def __init__(self, changed: Mapping[int, int]) -> None:
        super().__init__()
        self.changed = changed
        self.keyrings.add_key(-3, key_pair().certificate_der)

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        result = super().prog_run(fd, ctx, pointers)
        after = bytearray(result.ctx)
        loader = _signed_example().loader
        places = [loader.map_fd_offset(number) for number in range(len(loader.maps))]
        places += [loader.prog_fd_offset(number) for number in range(len(loader.programs))]
        for place, handed_back in self.changed.items():
            if handed_back < -100:  # the same as another place
                other = places[handed_back + 200]
                after[places[place] : places[place] + 4] = after[other : other + 4]
            else:
                number = handed_back.to_bytes(4, "little", signed=True)
                after[places[place] : places[place] + 4] = number
        return RunResult(result.retval, bytes(after))


SAME_AS = -200
"""Plus the number of a place: what is there."""


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({0: 0}, "handed back fd 0 for started"),
        ({5: 0}, "handed back fd 0 for on_exit"),
        ({1: -9}, "handed back fd -9 for events"),
        ({1: SAME_AS + 0}, "for events"),
        ({5: SAME_AS + 4}, "for on_exit"),
        ({5: SAME_AS + 0}, "for on_exit"),
        ({0: 3}, "handed back fd 3 for started"),  # of the metadata, which the load closes
        ({0: SAME_AS + 1, 1: SAME_AS + 1}, "map started is of type 27"),
        ({2: 57}, "57"),
    ],
)
def test_fds_that_come_back_are_checked_and_only_the_loaders_own_are_closed(
    changed: dict[int, int], reason: str
) -> None:
    kernel = Answering(changed)
    kernel.open_file("journal", 57)
    with pytest.raises((VerificationError, KernelError), match=reason):
        load(kernel, _signed_example())
    left = set(kernel.open_fds)
    assert {0, 1, 2, 57} <= left, "what the process had open is not the loader's to close"
    assert 3 not in left


def test_maps_of_other_sizes_than_wanted_are_refused_before_they_are_used() -> None:
    """kernel/bpf/syscall.c bpf_map_get_info_by_fd says how much the kernel writes."""
    signed = _signed_example()
    started = signed.loader.maps[0]
    for size in ("key_size", "value_size", "type"):
        wrong: dict[str, Any] = {size: 9}
        maps = (replace(started, **wrong), *signed.loader.maps[1:])
        kernel = trusting_kernel()
        before = kernel.open_fds
        with pytest.raises(VerificationError, match="map started is of type"):
            load(
                kernel,
                replace(signed, loader=replace(signed.loader, maps=maps)),
                check_metadata=False,
            )
        assert kernel.open_fds == before


@pytest.mark.parametrize("size", [0, 7, 9])
def test_values_of_the_host_have_the_size_that_the_loader_copies(size: int) -> None:
    """bpf_copy_from_user in the loader reads as many bytes as the map's value has."""
    kernel = trusting_kernel()
    with pytest.raises(UsageError, match=f"map rodata takes 8 bytes, not {size}"):
        load(kernel, _signed_example(), host_values=HostValues({"rodata": bytes(size)}))
    with pytest.raises(UsageError, match="map other takes no bytes"):
        load(kernel, _signed_example(), host_values=HostValues({"other": b""}))
    assert kernel.trace == ()


def test_the_number_of_entries_is_the_kernels() -> None:
    signed = _signed_example()
    values = HostValues(max_entries={"started": 77})
    loaded = load(trusting_kernel(), signed, host_values=values)
    assert loaded.maps[0] == replace(signed.loader.maps[0], max_entries=77)
    assert loaded.maps[1:] == signed.loader.maps[1:]


def _signed_example() -> SignedLoader:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    return sign_loader(generate(obj, "kfunc"))


def test_a_negative_return_value_is_the_error_of_the_run_with_its_rule() -> None:
    kernel = trusting_kernel()
    before = kernel.open_fds
    changed = METADATA[:-1] + b"!"
    with pytest.raises(KernelError) as refused:
        load(kernel, sign_loader(make_loader(metadata=changed)), check_metadata=False)
    assert (refused.value.step, refused.value.errno) == ("prog_run", EBADMSG)
    assert "bpf_loader_verify_metadata" in refused.value.rule
    assert kernel.open_fds == before


def test_a_loader_that_uses_more_context_than_it_gets_is_einval() -> None:
    insns = loader_insns(kfunc_call(sha256(METADATA)), body=[ldx_mem(op.DW, 1, 6, 4096)])
    with pytest.raises(KernelError) as refused:
        load_by_hand(trusting_kernel(), sign_loader(make_loader(insns)))
    assert (refused.value.step, refused.value.errno) == ("prog_run", EINVAL)
    assert "4104" in refused.value.rule


def test_metadata_that_is_not_the_signed_one_is_refused_before_the_first_call() -> None:
    kernel = trusting_kernel()
    with pytest.raises(VerificationError, match="metadata"):
        load(kernel, sign_loader(make_loader(metadata=METADATA[:-1] + b"!")))
    assert kernel.trace == ()


def test_a_signed_loader_without_a_digest_is_refused_before_the_first_call() -> None:
    kernel = trusting_kernel()
    with pytest.raises(VerificationError, match="no digest"):
        load(kernel, sign_loader(make_loader(loader_insns())))
    assert kernel.trace == ()


HOSTILE = (57).to_bytes(4, "little") + METADATA[4:]


def test_a_refused_loader_still_runs_its_cleanup_and_closes_the_callers_fds() -> None:
    kernel = trusting_kernel()
    kernel.open_file("journal", 57)
    with pytest.raises(KernelError) as refused:
        load(kernel, sign_loader(make_loader(metadata=HOSTILE)), check_metadata=False)
    assert refused.value.errno == EBADMSG
    assert 57 not in kernel.open_fds


def test_by_default_the_callers_fds_are_safe_from_unverified_metadata() -> None:
    kernel = trusting_kernel()
    kernel.open_file("journal", 57)
    with pytest.raises(VerificationError):
        load(kernel, sign_loader(make_loader(metadata=HOSTILE)))
    assert kernel.open_fds[57] == "file journal"


def test_an_unsigned_loader_whose_metadata_was_changed_is_refused_too() -> None:
    with pytest.raises(VerificationError):
        load(trusting_kernel(), SignedLoader(make_loader(metadata=HOSTILE)), unsigned=True)


def test_a_loader_that_closes_the_fds_of_the_load_itself_does_no_harm() -> None:
    body = [mov64_imm(1, 3), call_helper(Helper.SYS_CLOSE), *create_map_body()]
    insns = loader_insns(kfunc_call(sha256(METADATA)), body=body)
    kernel = trusting_kernel()
    with pytest.raises(VerificationError, match="handed back fd 3 for counts"):
        load_by_hand(kernel, sign_loader(make_loader(insns)))
    assert set(kernel.open_fds) == {0, 1, 2}


def test_no_such_signature_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no signature 1"):
        load(trusting_kernel(), sign_loader(make_loader()), signature=1)


def test_the_signature_that_was_asked_for_is_used() -> None:
    signed = sign_loader(make_loader())
    foreign = replace(signed.signatures[0], cms=sign(b"something else"))
    both = SignedLoader(signed.loader, (foreign, *signed.signatures))
    load_by_hand(trusting_kernel(), both, signature=1)
    with pytest.raises(KernelError):
        load_by_hand(trusting_kernel(), both, signature=0)


def _example(kernel: ModelKernel) -> LoadedSkeleton:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    return load(kernel, sign_loader(generate(obj, "kfunc")))


def test_the_example_object_loads_its_maps_and_programs() -> None:
    kernel = trusting_kernel()
    skeleton = _example(kernel)
    assert set(skeleton.map_fds) == {"started", "events", "rodata", "bss"}
    assert {kernel.program(fd).name for fd in skeleton.prog_fds.values()} == {"on_exec", "on_exit"}
    assert set(kernel.open_fds) == {
        0,
        1,
        2,
        *skeleton.map_fds.values(),
        *skeleton.prog_fds.values(),
    }
    assert kernel.map(skeleton.map_fds["rodata"]).frozen


def test_inner_programs_are_unsigned_loads_from_inside_the_kernel() -> None:
    kernel = trusting_kernel()
    _example(kernel)
    loader, *inner = kernel.programs
    assert (loader.verdict, loader.is_kernel) == (Verdict.METADATA_VERIFIED, False)
    assert [(p.verdict, p.is_kernel) for p in inner] == [(Verdict.UNSIGNED, True)] * 2
    assert inner[0].attach_target == "btf_trace_sched_process_exec"
    assert inner[0].map_references


def test_a_policy_that_denies_unsigned_without_exempting_the_kernel_stops_the_loader() -> None:
    def deny_unsigned(operation: Operation, program: ProgramFacts) -> int:
        denied = operation is Operation.BPF_PROG_LOAD and program.verdict is Verdict.UNSIGNED
        return -EACCES if denied else 0

    kernel = trusting_kernel(deny_unsigned)
    before = kernel.open_fds
    with pytest.raises(KernelError) as refused:
        _example(kernel)
    assert (refused.value.step, refused.value.errno) == ("prog_run", EACCES)
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED
    assert kernel.open_fds == before


def test_with_the_kernels_own_loads_allowed_the_policy_lets_the_loader_through() -> None:
    def deny_unsigned(_operation: Operation, program: ProgramFacts) -> int:
        return -EACCES if program.verdict is Verdict.UNSIGNED and not program.is_kernel else 0

    _example(trusting_kernel(deny_unsigned))


def test_the_synthetic_kernel_btf_says_what_it_assumed() -> None:
    kernel = trusting_kernel()
    _example(kernel)
    assert kernel.btf.assumed == [
        "typedef btf_trace_sched_process_exec",
        "field task_struct.tgid",
        "typedef btf_trace_sched_process_exit",
        "field task_struct.pid",
        "field task_struct.real_parent",
        "field task_struct.comm",
    ]
