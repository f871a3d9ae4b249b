"""The C skeleton compiles against libbpf's public headers and does what a light skeleton does."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import alu64_imm, exit_insn, jmp_imm, mov64_imm
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.skeleton_c import c_skeleton
from bpfseal.errors import BpfsealError, InputError, UsageError, VerificationError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.object import read_object
from bpfseal.object.model import BpfObject
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import Signer, load_signer
from support.fuzz import mutations
from support.object_writer import ObjectWriter

from .c_programs import HEADER, compiled, filter_object, output_of

EXAMPLES = Path(__file__).parents[2] / "examples"
INCLUDE = f'#include <stdio.h>\n#include "{HEADER}"\n'


@cache
def signer() -> Signer:
    key = generate_key("p256", "test")
    return load_signer(key.private_key_pem, key.certificate_pem)


def example(name: str) -> BpfObject:
    return read_object((EXAMPLES / f"{name}.bpf.o").read_bytes(), f"{name}.bpf.o")


def bundle_of(obj: BpfObject, *schemes: str) -> Bundle:
    loaders = [SignedLoader(generate(obj, scheme)) for scheme in schemes]
    signed = [
        sign_loader(loader, signer()) if loader.loader.scheme.signed_parts else loader
        for loader in loaders
    ]
    return Bundle(obj.name, tuple(signed))


def changed(bundle: Bundle, **fields: Any) -> Bundle:
    """Return the bundle with fields of its loaders replaced."""
    variants = []
    for variant in bundle.variants:
        loader: Loader = replace(variant.loader, **fields)
        variants.append(replace(variant, loader=loader))
    return replace(bundle, variants=tuple(variants))


# Compiling


@pytest.mark.parametrize("language", ["c", "cc"])
@pytest.mark.parametrize("optimise", ["-O0", "-O2"])
def test_two_skeletons_compile_in_one_file(tmp_path: Path, language: str, optimise: str) -> None:
    header = c_skeleton(bundle_of(example("exectrace"), *SIGNED_SCHEMES))
    header += "\n" + c_skeleton(bundle_of(example("xdpcount"), "unsigned"), unsigned=True)
    code = INCLUDE + (
        "int main(void) {\n"
        "struct exectrace_bpf *one = exectrace_bpf__open();\n"
        "struct xdpcount_bpf *two = xdpcount_bpf__open();\n"
        "if (!one || !two) return 1;\n"
        'printf("%d\\n", one->keyring_id + two->maps.rodata.map_fd);\n'
        "exectrace_bpf__destroy(one); xdpcount_bpf__destroy(two);\n"
        "return 0; }\n"
    )
    program = compiled(tmp_path, header, code, optimise, language=language)
    assert output_of(program) == ["0"]


def test_every_name_of_a_light_skeleton_is_there(tmp_path: Path) -> None:
    """A program written for the reference tool's header compiles unchanged."""
    code = INCLUDE + (
        "static inline int use(struct exectrace_bpf *skel) {\n"
        "struct exectrace_bpf__rodata *rodata = skel->rodata;\n"
        "rodata->min_lifetime_ns = 5;\n"
        "skel->ctx.log_level = 1; skel->keyring_id = -3;\n"
        "int fds = skel->maps.started.map_fd + skel->progs.on_exec.prog_fd\n"
        "  + skel->links.on_exec_fd;\n"
        "return fds + exectrace_bpf__load(skel) + exectrace_bpf__attach(skel)\n"
        "  + exectrace_bpf__on_exec__attach(skel); }\n"
        "int main(void) {\n"
        "struct exectrace_bpf *(*make)(void) = exectrace_bpf__open_and_load;\n"
        "struct exectrace_bpf *skel = exectrace_bpf__open_opts(NULL);\n"
        "exectrace_bpf__detach(skel);\n"
        'printf("%llu %u\\n", (unsigned long long)skel->rodata->min_lifetime_ns, skel->ctx.sz);\n'
        "exectrace_bpf__destroy(skel); exectrace_bpf__destroy(NULL);\n"
        "return make == NULL; }\n"
    )
    header = c_skeleton(bundle_of(example("exectrace"), "kfunc"))
    assert output_of(compiled(tmp_path, header, code)) == ["0 96"]


def test_options_of_open_that_a_loader_cannot_follow_are_refused(tmp_path: Path) -> None:
    code = INCLUDE + (
        "int main(void) {\n"
        "char log[100];\n"
        "LIBBPF_OPTS(bpf_object_open_opts, plain, .kernel_log_buf = log,\n"
        "  .kernel_log_size = 100, .kernel_log_level = 2);\n"
        'LIBBPF_OPTS(bpf_object_open_opts, other, .kconfig = "CONFIG_X=y");\n'
        "struct exectrace_bpf *skel = exectrace_bpf__open_opts(&plain);\n"
        'printf("%u %u %d\\n", skel->ctx.log_level, skel->ctx.log_size,\n'
        "  skel->ctx.log_buf == (__u64)(unsigned long)log);\n"
        "exectrace_bpf__destroy(skel);\n"
        "errno = 0; skel = exectrace_bpf__open_opts(&other);\n"
        'printf("%d %d\\n", !skel, errno == EOPNOTSUPP);\n'
        "return 0; }\n"
    )
    header = c_skeleton(bundle_of(example("exectrace"), "unsigned"), unsigned=True)
    assert output_of(compiled(tmp_path, header, code)) == ["2 100 1", "1 1"]


# Loading for real

FDS = """
#include <dirent.h>
static int open_fds(void) {
	int count = 0;
	DIR *folder = opendir("/proc/self/fd");
	while (readdir(folder)) count++;
	closedir(folder);
	return count;
}
"""


def test_an_unsigned_skeleton_loads_runs_and_closes_everything(tmp_path: Path) -> None:
    code = INCLUDE + (
        f"{FDS}\n"
        "int main(void) {\n"
        "int before = open_fds();\n"
        "struct sample_bpf *skel = sample_bpf__open();\n"
        'printf("%d\\n", skel->rodata->limit);\n'
        "skel->rodata->limit = 42; skel->maps.table.max_entries = 3;\n"
        "int err = sample_bpf__load(skel);\n"
        'if (err) { printf("%d\\n", err); return 0; }\n'
        "union bpf_attr attr; char packet[64] = { 0 };\n"
        "memset(&attr, 0, sizeof(attr));\n"
        "attr.test.prog_fd = skel->progs.main.prog_fd;\n"
        "attr.test.data_in = (unsigned long)packet; attr.test.data_size_in = sizeof(packet);\n"
        "err = skel_sys_bpf(BPF_PROG_TEST_RUN, &attr, sizeof(attr));\n"
        'printf("%d %u %d\\n", err, attr.test.retval, skel->bss->seen);\n'
        'printf("%d %d\\n", skel->rodata->limit, sample_bpf__attach(skel));\n'
        "struct bpf_map_info info; memset(&info, 0, sizeof(info));\n"
        "memset(&attr, 0, sizeof(attr));\n"
        "attr.info.bpf_fd = skel->maps.table.map_fd; attr.info.info_len = sizeof(info);\n"
        "attr.info.info = (unsigned long)&info;\n"
        "skel_sys_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr));\n"
        'printf("%u\\n", info.max_entries);\n'
        "sample_bpf__destroy(skel);\n"
        'printf("%d\\n", open_fds() - before);\n'
        "return 0; }\n"
    )
    header = c_skeleton(bundle_of(filter_object().read(), "unsigned"), unsigned=True)
    lines = output_of(compiled(tmp_path, header, code))
    if lines[1:] == [str(-errno.EPERM)]:
        pytest.skip("this process may not load BPF programs")
    assert lines == ["7", "0 42 42", "42 0", "3", "0"]


@pytest.mark.parametrize("period", [100_000, 2_000])
def test_a_skeleton_loads_whatever_a_timer_does(tmp_path: Path, period: int) -> None:
    """A verifier with a pending signal gives up with EAGAIN (kernel/bpf/verifier.c do_check)."""
    writer = ObjectWriter()
    rounds = [mov64_imm(0, 0), alu64_imm(op.ADD, 0, 1), jmp_imm(op.JLT, 0, 30_000, -2), exit_insn()]
    writer.add_program("socket", "main", rounds)
    code = INCLUDE + (
        "#include <sys/time.h>\n"
        "static volatile int calls;\n"
        "static void handler(int number) { calls += number; }\n"
        "int main(void) {\n"
        "struct sigaction action; memset(&action, 0, sizeof(action));\n"
        "action.sa_handler = handler; sigaction(SIGALRM, &action, NULL);\n"
        f"struct itimerval timer = {{ {{ 0, {period} }}, {{ 0, {period} }} }};\n"
        "setitimer(ITIMER_REAL, &timer, NULL);\n"
        "for (int i = 0; i < 10; i++) {\n"
        "struct sample_bpf *skel = sample_bpf__open();\n"
        'printf("%d\\n", sample_bpf__load(skel));\n'
        "sample_bpf__destroy(skel);\n"
        "}\n"
        'printf("%d\\n", calls > 0);\n'
        "sigset_t mask; sigprocmask(SIG_BLOCK, NULL, &mask);\n"
        'printf("%d\\n", sigismember(&mask, SIGTERM));\n'
        "return 0; }\n"
    )
    header = c_skeleton(bundle_of(writer.read(), "unsigned"), unsigned=True)
    lines = output_of(compiled(tmp_path, header, code))
    if lines[0] == str(-errno.EPERM):
        pytest.skip("this process may not load BPF programs")
    assert lines == ["0"] * 10 + ["1", "0"]


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
def test_a_signed_skeleton_hands_back_the_kernels_refusal(tmp_path: Path, scheme: str) -> None:
    """The key is in no keyring; kernels without signature verification say EOPNOTSUPP."""
    code = INCLUDE + (
        f"{FDS}\n"
        "int main(void) {\n"
        "int before = open_fds();\n"
        "struct sample_bpf *skel = sample_bpf__open();\n"
        "skel->keyring_id = -3;\n"
        "int err = sample_bpf__load(skel);\n"
        'printf("%d %d\\n", err, errno == -err);\n'
        "sample_bpf__destroy(skel);\n"
        'printf("%d\\n", open_fds() - before);\n'
        "return 0; }\n"
    )
    header = c_skeleton(bundle_of(filter_object().read(), scheme))
    lines = output_of(compiled(tmp_path, header, code))
    if lines[0] == f"{-errno.EPERM} 1":
        pytest.skip("this process may not load BPF programs")
    if lines[0] == f"{-errno.E2BIG} 1":
        pytest.skip("this kernel knows no signatures of BPF programs")
    refusals = [errno.EOPNOTSUPP, errno.ENOKEY]
    if scheme == "kfunc":
        refusals.append(errno.EKEYREJECTED)
    assert lines[0] in [f"{-number} 1" for number in refusals]
    assert lines[1] == "0"


# The choice of the variant, with answers that kernels were seen to give

ANSWERING = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/bpf.h>
static int asked, answers_given, refusal_of_run;
static char **answers;
static long answer(long number, int command, void *attr, unsigned int size)
{
	__u32 *words = (__u32 *)attr;
	int refusal;
	(void)number;
	switch (command) {
	case BPF_MAP_CREATE:
		asked = 0;
		return open("/dev/null", O_RDONLY);
	case BPF_OBJ_GET_INFO_BY_FD:
		asked = 1;
		return 0;
	case BPF_BTF_LOAD:
		return open("/dev/null", O_RDONLY);
	case BPF_PROG_LOAD:
		if (size < 168 || !words[40] || words[41] != (__u32)-3)
			printf("U");
		printf(words[37] ? "L" : words[18] ? "K" : asked ? "I" : "?");
		refusal = answers[answers_given] ? atoi(answers[answers_given++]) : EIO;
		if (!refusal)
			return open("/dev/null", O_RDONLY);
		errno = refusal;
		return -1;
	case BPF_PROG_TEST_RUN:
		words[1] = -refusal_of_run;
		return 0;
	}
	return 0;
}
#define syscall answer
"""


@cache
def choosing_header() -> str:
    writer = ObjectWriter()
    writer.add_program("socket", "main")
    return c_skeleton(bundle_of(writer.read(), *SIGNED_SCHEMES))


REJECTED, NO_KEY, DENIED = errno.EKEYREJECTED, errno.ENOKEY, errno.EACCES


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = (
        ANSWERING
        + INCLUDE
        + (
            f"{FDS}\n"
            "int main(int argc, char **argv) {\n"
            "int before = open_fds();\n"
            "struct sample_bpf *skel = sample_bpf__open();\n"
            "(void)argc; refusal_of_run = atoi(argv[1]); answers = argv + 2;\n"
            "skel->keyring_id = -3;\n"
            "int err = sample_bpf__load(skel);\n"
            "sample_bpf__destroy(skel);\n"
            'printf(" %d %d\\n", -err, open_fds() - before);\n'
            "return 0; }\n"
        )
    )
    return compiled(tmp_path_factory.mktemp("choosing"), choosing_header(), code)


@pytest.mark.parametrize(
    ("answers", "of_run", "tried", "outcome"),
    [
        ([0], 0, "L", 0),
        ([REJECTED, 0], 0, "LK", 0),
        ([REJECTED, REJECTED, 0], 0, "LKI", 0),
        ([REJECTED, REJECTED, DENIED, 0], 0, "LKII", 0),
        ([errno.EINVAL, errno.ENOENT, errno.E2BIG, 0], 0, "LKII", 0),
        ([REJECTED] * 4, 0, "LKII", REJECTED),
        ([REJECTED, REJECTED, DENIED, DENIED], 0, "LKII", DENIED),
        ([NO_KEY, DENIED, DENIED, DENIED], 0, "LKII", NO_KEY),
        ([DENIED, REJECTED, REJECTED, NO_KEY], 0, "LKII", NO_KEY),
        # what is no matter of the format ends the load
        ([errno.EPERM], 0, "L", errno.EPERM),
        ([REJECTED, errno.EOPNOTSUPP], 0, "LK", errno.EOPNOTSUPP),
        ([errno.ENOMEM], 0, "L", errno.ENOMEM),
        # a loader that ran is never followed by another
        ([0], errno.EBADMSG, "L", errno.EBADMSG),
        ([REJECTED, 0], DENIED, "LK", DENIED),
        # interrupted by a signal
        ([errno.EAGAIN, errno.EAGAIN, 0], 0, "LLL", 0),
        ([errno.EAGAIN] * 5, 0, "LLLLL", errno.EAGAIN),
        ([errno.EINTR, 0], 0, "LL", 0),
        ([0], errno.EAGAIN, "L", errno.EAGAIN),
    ],
)
def test_the_next_variant_is_tried_when_the_format_or_key_is_refused(
    choosing: Path, answers: list[int], of_run: int, tried: str, outcome: int
) -> None:
    """L: loadtime, K: kfunc, I: inline and inline-original. Never U: unsigned."""
    assert output_of(choosing, str(of_run), *map(str, answers)) == [f"{tried} {outcome} 0"]


def test_every_signature_of_a_variant_is_one_way_to_load() -> None:
    bundle = bundle_of(filter_object().read(), "loadtime")
    variant = sign_loader(bundle.variants[0], signer(), hash_name="sha512")
    header = c_skeleton(replace(bundle, variants=(variant,)))
    attempts = header.partition("bpfseal_attempt attempts[] = {")[2].partition("};")[0]
    assert attempts.count("\t\tinsns_loadtime,\n") == 2
    assert attempts.count("\t\tsignature_loadtime_1,\n") == 1


@pytest.mark.parametrize("member", ["rodata->limit", "bss->seen", "maps.table.max_entries"])
def test_values_that_a_signed_loader_would_ignore_are_refused(tmp_path: Path, member: str) -> None:
    code = INCLUDE + (
        "int main(void) {\n"
        "struct sample_bpf *skel = sample_bpf__open();\n"
        f"skel->{member} = 5;\n"
        'printf("%d\\n", -sample_bpf__load(skel));\n'
        "sample_bpf__destroy(skel); return 0; }\n"
    )
    header = c_skeleton(bundle_of(filter_object().read(), "loadtime", "inline"))
    assert output_of(compiled(tmp_path, header, code)) == [str(errno.EPERM)]


# Attaching


@pytest.mark.parametrize(
    ("section", "call"),
    [
        ("raw_tp/sched_switch", 'skel_raw_tracepoint_open("sched_switch", prog_fd)'),
        ("raw_tracepoint.w/nbd_send_request", 'skel_raw_tracepoint_open("nbd_send_request", '),
        ("tp_btf/sched_switch", "skel_raw_tracepoint_open(NULL, prog_fd)"),
        ("fentry/do_unlinkat", "skel_raw_tracepoint_open(NULL, prog_fd)"),
        ("lsm/file_open", "skel_raw_tracepoint_open(NULL, prog_fd)"),
        ("iter/task", "skel_link_create(prog_fd, 0, BPF_TRACE_ITER)"),
        ("lsm_cgroup/socket_bind", ""),
        ("raw_tp", ""),
        ("kprobe/do_unlinkat", ""),
        ("xdp", ""),
    ],
)
def test_programs_are_attached_as_their_type_says(section: str, call: str) -> None:
    writer = ObjectWriter()
    writer.add_program(section, "main")
    header = c_skeleton(bundle_of(writer.read(), "unsigned"), unsigned=True)
    body = header.partition("sample_bpf__main__attach(")[2].partition("\n}\n")[0]
    assert (call or "int fd = 0;") in body


# What is refused


@pytest.mark.parametrize("option", ["", "-DBPFSEAL_TRUST_SECTIONS"])
def test_a_raw_tracepoint_that_no_signature_covers_is_attached_only_if_that_was_asked_for(
    tmp_path: Path, option: str
) -> None:
    writer = ObjectWriter()
    writer.add_program("raw_tp/sched_switch", "main")
    obj = writer.read()
    code = f"""{INCLUDE}
int main(void)
{{
	struct {obj.name} *skel = {obj.name}__open();
	if (!skel)
		return 1;
	skel->progs.main.prog_fd = -1;
	printf("%d\\n", {obj.name}__main__attach(skel) == -EPERM);
	skel->progs.main.prog_fd = 0;
	{obj.name}__destroy(skel);
	return 0;
}}
"""
    header = c_skeleton(bundle_of(obj, "loadtime"))
    options = [option] if option else []
    (refused,) = output_of(compiled(tmp_path, header, code, *options))
    if option and os.geteuid() == 0:
        assert refused == "0"  # an fd that is none: EBADF
    elif not option:
        assert refused == "1"  # with it, other users are told either: it depends on the kernel
    assert "BPFSEAL_TRUST_SECTIONS" not in c_skeleton(bundle_of(obj, "unsigned"), unsigned=True)


def test_the_same_bundle_gives_the_same_text() -> None:
    bundle = bundle_of(example("exectrace"), *SIGNED_SCHEMES)
    reversed_bundle = replace(bundle, variants=bundle.variants[::-1])
    assert c_skeleton(bundle) == c_skeleton(reversed_bundle)


def test_equal_blobs_are_embedded_once() -> None:
    header = c_skeleton(bundle_of(example("exectrace"), *SIGNED_SCHEMES))
    assert header.count("static const char metadata_") == 1


def test_only_the_signed_variants_are_embedded() -> None:
    both = bundle_of(example("exectrace"), "kfunc", "loadtime")
    bare = replace(both.variants[0], signatures=())
    partly = replace(both, variants=(bare, both.variants[1]))
    assert c_skeleton(partly) == c_skeleton(bundle_of(example("exectrace"), "loadtime"))


def test_a_bundle_without_any_signature_is_refused() -> None:
    loader = generate(example("exectrace"), "kfunc")
    with pytest.raises(UsageError, match="the variant kfunc is not signed"):
        c_skeleton(Bundle("exectrace_bpf", (SignedLoader(loader),)))
    with pytest.raises(UsageError, match="holds no loader"):
        c_skeleton(Bundle("exectrace_bpf", ()))


def test_an_unsigned_skeleton_is_made_only_when_that_is_asked_for() -> None:
    unsigned = bundle_of(example("exectrace"), "unsigned")
    with pytest.raises(UsageError, match="which nobody checks"):
        c_skeleton(unsigned)
    header = c_skeleton(unsigned, unsigned=True)
    assert "UNSIGNED: nobody checks" in header
    assert "BPFSEAL_HOST_VALUES | BPFSEAL_UNSIGNED," in header
    signed = bundle_of(example("exectrace"), "loadtime")
    assert "BPFSEAL_UNSIGNED," not in c_skeleton(signed)
    with pytest.raises(UsageError, match="is made of the unsigned variant"):
        c_skeleton(signed, unsigned=True)
    odd = replace(unsigned.variants[0], signatures=signed.variants[0].signatures)
    with pytest.raises(UsageError, match="is made of the unsigned variant"):
        c_skeleton(replace(unsigned, variants=(odd,)), unsigned=True)


def test_the_runtime_loads_nothing_unsigned_that_does_not_say_so(tmp_path: Path) -> None:
    """A table that somebody edits, or a signature that was left out, ends in -EPERM."""
    code = INCLUDE + (
        "int main(void) {\n"
        "struct sample_bpf *skel = sample_bpf__open();\n"
        'printf("%d\\n", sample_bpf__load(skel));\n'
        "sample_bpf__destroy(skel); return 0; }\n"
    )
    header = c_skeleton(bundle_of(filter_object().read(), "unsigned"), unsigned=True)
    edited = header.replace(" | BPFSEAL_UNSIGNED,", ",")
    assert edited != header
    assert output_of(compiled(tmp_path, edited, code)) == [str(-errno.EPERM)]


def test_an_unsigned_variant_is_left_out_beside_signed_ones() -> None:
    header = c_skeleton(bundle_of(example("exectrace"), "unsigned", "loadtime"))
    assert "insns_unsigned" not in header


def test_metadata_that_the_instructions_do_not_vouch_for_is_refused() -> None:
    bundle = bundle_of(example("exectrace"), "kfunc")
    metadata = bundle.variants[0].loader.metadata[:-1] + b"\1"
    with pytest.raises(VerificationError):
        c_skeleton(changed(bundle, metadata=metadata))
    with pytest.raises(VerificationError, match="the loader BTF"):
        c_skeleton(changed(bundle, btf=b"another"))


def test_variants_with_other_maps_are_refused() -> None:
    bundle = bundle_of(example("exectrace"), "kfunc", "loadtime")
    other = changed(bundle_of(example("exectrace"), "inline"), maps=())
    with pytest.raises(InputError, match="different maps or programs"):
        c_skeleton(replace(bundle, variants=(*bundle.variants, *other.variants)))


EVIL = 'x; } int main(void) { system("true"); '


@pytest.mark.parametrize("name", [EVIL, "a b", "1x", "", "int", "x\n#error", 'x"'])
def test_names_never_become_code(name: str) -> None:
    bundle = bundle_of(example("exectrace"), "loadtime")
    loader = bundle.variants[0].loader
    maps = (replace(loader.maps[0], ident=name), *loader.maps[1:])
    programs = (replace(loader.programs[0], name=name), *loader.programs[1:])
    for unfit in (
        replace(bundle, name=name),
        changed(bundle, maps=maps),
        changed(bundle, programs=programs),
    ):
        with pytest.raises(InputError, match=r"is no name for source code|is of"):
            c_skeleton(unfit)


def test_tracepoints_never_become_code() -> None:
    writer = ObjectWriter()
    writer.add_program("raw_tp/sched_switch", "main")
    bundle = bundle_of(writer.read(), "unsigned")
    programs = (replace(bundle.variants[0].loader.programs[0], section=f"raw_tp/{EVIL}"),)
    with pytest.raises(InputError, match="is no tracepoint"):
        c_skeleton(changed(bundle, programs=programs), unsigned=True)


def test_a_list_of_maps_that_the_loader_does_not_make_is_refused() -> None:
    bundle = bundle_of(example("exectrace"), "unsigned")
    maps = bundle.variants[0].loader.maps
    with pytest.raises(VerificationError, match="says number of maps 3, the loader 4"):
        c_skeleton(changed(bundle, maps=maps[1:]), unsigned=True)
    wrong = tuple(replace(entry, value_size=entry.value_size + 1) for entry in maps)
    with pytest.raises(VerificationError, match="value_size"):
        c_skeleton(changed(bundle, maps=wrong), unsigned=True)


@pytest.mark.parametrize("part", ["metadata", "insns"])
def test_damaged_loaders_are_refused_or_give_a_header(part: str) -> None:
    bundle = bundle_of(filter_object().read(), "unsigned")
    intact: bytes = getattr(bundle.variants[0].loader, part)
    headers = 0
    for damaged in mutations(intact, 1000, seed=11):
        try:
            c_skeleton(changed(bundle, **{part: damaged}), unsigned=True)
        except BpfsealError:
            continue
        headers += 1
    assert headers
