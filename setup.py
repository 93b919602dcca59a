"""Builds the compiled extension `equivengine._C`; everything else about the package stands in pyproject.toml.

Environment:
    EQUIVENGINE_NO_EXTENSION: 1 installs without the extension.
    EQUIVENGINE_CUDA: auto (CUDA kernels where nvcc of torch's CUDA major release is present), 0 (CPU only) or 1 (an
        error where they cannot be built).
    TORCH_CUDA_ARCH_LIST: compute capabilities; default: those of the visible GPUs, else 9.0.
    CUDA_HOME, MAX_JOBS, CXX: as PyTorch's own build machinery takes them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
CSRC = Path("csrc")

# The kernel files `csrc/cpu/*_kernel_VARIANT.cpp` are compiled once for each variant, with its flags.
# csrc/cpu/isa.cpp asks the processor for the same features at run time.
X86_VARIANTS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
# The files `csrc/cpu/*_unfused.cpp` give the same bits everywhere, so no operation may be fused with the next. Without
# errno and floating-point traps, which change no value, their loops vectorize.
UNFUSED_FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
DEFAULT_ARCH_LIST = "9.0"


def say(message: str) -> None:
    """Print a decision, so that a build log tells what was built and why."""
    print(f"equivengine: {message}", file=sys.stderr, flush=True)


def refuse(message: str) -> SystemExit:
    """End the build with a sentence instead of a traceback."""
    return SystemExit(f"equivengine: {message}")


def environment(name: str, allowed: tuple[str, ...], default: str) -> str:
    """Read a setting, or end the build where it is not understood."""
    value = os.environ.get(name) or default
    if value not in allowed:
        raise refuse(f"{name}: expected {' | '.join(allowed)}, got {value!r}")
    return value


def find_ninja() -> None:
    """Put ninja on PATH where it is installed beside the interpreter but its folder is not on PATH."""
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    try:
        import ninja

        folders.append(ninja.BIN_DIR)
    except ImportError:
        pass
    if shutil.which("ninja") is None:
        for folder in folders:
            if shutil.which("ninja", path=folder):
                os.environ["PATH"] = folder + os.pathsep + os.environ["PATH"]
                return


def cxx_compiler() -> str | None:
    """Return the C++ compiler that PyTorch's build machinery will use, or None where there is none."""
    if "CXX" in os.environ:
        command = shlex.split(os.environ["CXX"])
        if not command or shutil.which(command[0]) is None:
            raise refuse(f"CXX={os.environ['CXX']!r} is not a program on PATH")
        return os.environ["CXX"]
    return "c++" if shutil.which("c++") else None


def find_toolkit() -> tuple[Path, str] | None:
    """Return the CUDA toolkit's folder and release ("13.0"), or None where there is no nvcc."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    on_path = shutil.which("nvcc")
    if named:
        candidates = [Path(named)]
    else:
        # nvcc on PATH may be a wrapper script outside the toolkit: its folder counts only with the headers beside it.
        candidates = [Path(on_path).resolve().parent.parent] if on_path else []
        candidates.append(Path("/usr/local/cuda"))
    for home in candidates:
        nvcc = home / "bin" / "nvcc"
        if not nvcc.is_file() or not (home / "include" / "cuda_runtime_api.h").is_file():
            continue
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        release = re.search(r"release (\d+\.\d+)", text)
        if release:
            return home, release.group(1)
    if named:
        raise refuse(f"CUDA_HOME={named!r} holds no bin/nvcc and include/cuda_runtime_api.h")
    return None


def choose_cuda(torch_cuda: str | None) -> tuple[Path, str] | None:
    """Decide whether the CUDA kernels are built, and say why not."""
    wish = environment("EQUIVENGINE_CUDA", ("auto", "0", "1"), "auto")
    if wish == "0":
        say("EQUIVENGINE_CUDA=0: building the CPU kernels only")
        return None
    if torch_cuda is None:
        problem = "this torch is built without CUDA"
    elif (toolkit := find_toolkit()) is None:
        problem = "there is no CUDA toolkit (nvcc on PATH, or CUDA_HOME)"
    elif toolkit[1].partition(".")[0] != torch_cuda.partition(".")[0]:
        problem = f"nvcc is of CUDA {toolkit[1]}, torch of CUDA {torch_cuda}: the major release must be the same"
    else:
        return toolkit
    if wish == "1":
        raise refuse(f"EQUIVENGINE_CUDA=1, but {problem}")
    say(f"building the CPU kernels only: {problem}")
    return None


def toolkit_library_dirs(home: Path, pip_root: Path) -> list[str]:
    """Return the folders that hold libcudart.so."""
    return [str(d) for d in (home / "lib64", home / "lib", pip_root / "lib") if (d / "libcudart.so").exists()]


def build_machinery() -> dict[str, Any]:
    """Return setup()'s arguments for the extension, or none where it is not to be built."""
    if environment("EQUIVENGINE_NO_EXTENSION", ("0", "1"), "0") == "1":
        say("EQUIVENGINE_NO_EXTENSION=1: installing without the compiled extension; plain PyTorch formulas will run")
        return {}
    # Commands that compile nothing (sdist, egg_info, ...) must work without torch and without a compiler.
    builds = {"build", "build_ext", "bdist_wheel", "bdist", "install", "develop", "editable_wheel"}
    if not builds & set(sys.argv[1:]):
        return {}
    if cxx_compiler() is None:
        say(
            "there is no C++ compiler (c++ on PATH, or CXX): installing WITHOUT the compiled extension; plain PyTorch "
            "formulas will run. Install one (Debian: apt install g++) and install again to have the kernels."
        )
        return {}
    find_ninja()
    try:
        import torch
    except ImportError as error:
        raise refuse(
            f"torch cannot be imported in the build environment ({error}).\n"
            "  Install torch first, then: pip install --no-build-isolation .\n"
            "  Or install without compiled kernels: EQUIVENGINE_NO_EXTENSION=1 pip install ."
        ) from error

    toolkit = choose_cuda(torch.version.cuda)
    if toolkit is not None:
        # Read by torch.utils.cpp_extension when it is imported.
        os.environ["CUDA_HOME"] = str(toolkit[0])
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            seen = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
            os.environ["TORCH_CUDA_ARCH_LIST"] = (
                ";".join(f"{major}.{minor}" for major, minor in sorted(seen)) or DEFAULT_ARCH_LIST
            )
    return {"ext_modules": [extension(torch, toolkit)], "cmdclass": {"build_ext": build_command(torch, toolkit)}}


def variants() -> dict[str, list[str]]:
    """Return the CPU variants to compile and their flags."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return {"base": []} | (X86_VARIANTS if x86 else {})


def kernel_files(variant: str) -> list[str]:
    """Return the kernel files of one CPU variant."""
    return sorted(str(path) for path in CSRC.glob(f"cpu/*_kernel_{variant}.cpp"))


def unfused_files() -> list[str]:
    """Return the files that are compiled with `UNFUSED_FLAGS`."""
    return sorted(str(path) for path in CSRC.glob("cpu/*_unfused.cpp"))


def extension(torch: Any, toolkit: tuple[Path, str] | None) -> Extension:
    """Describe the extension; files with flags of their own are added as objects by the build command."""
    from torch.utils.cpp_extension import include_paths, library_paths

    kernels = {file for variant in ("base", *X86_VARIANTS) for file in kernel_files(variant)}
    sources = {str(p) for p in [*CSRC.glob("*.cpp"), *CSRC.glob("cpu/*.cpp")]} - kernels - {*unfused_files()}
    includes, libraries, library_dirs = include_paths(), ["c10", "torch", "torch_cpu"], library_paths()
    if toolkit is not None:
        sources |= {str(path) for path in CSRC.glob("cuda/*.cpp")}
        pip_root = Path(torch.__file__).resolve().parent.parent / "nvidia" / f"cu{toolkit[1].partition('.')[0]}"
        # The toolkit's headers first: they belong to the nvcc at hand. pip's fill in libraries a slim toolkit lacks.
        includes += [str(toolkit[0] / "include"), str(pip_root / "include")]
        library_dirs += toolkit_library_dirs(toolkit[0], pip_root)
        libraries += ["cudart", "c10_cuda", "torch_cuda"]
    cxx = ["-std=c++20", "-O3", "-Wall", "-fvisibility=hidden", "-g0"]
    if "ATen parallel backend: OpenMP" in torch.__config__.parallel_info():
        # at::parallel_for is inline: without the flag it runs on one thread. Not linked: torch brings the runtime.
        cxx.append("-fopenmp")
    if len(variants()) > 1:
        cxx.append("-DEQV_X86_VARIANTS")
    return Extension(
        "equivengine._C",
        sorted(sources),
        include_dirs=includes,
        library_dirs=library_dirs,
        libraries=libraries,
        language="c++",
        extra_compile_args={"cxx": cxx, "nvcc": ["-std=c++20", "-O3"]},
    )


def build_command(torch: Any, toolkit: tuple[Path, str] | None) -> type:
    """Return torch's build_ext, extended by the files with flags of their own and the build facts."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildWithVariants(BuildExtension):
        """Compiles CPU variants, unfused files and device code with their own flags, and writes the build facts."""

        def build_extension(self, ext: Extension) -> None:
            temporary = (ROOT / self.build_temp).resolve()
            generated = temporary / "generated"
            write_facts(generated / "build_facts.h", torch, toolkit)
            ext.include_dirs.insert(0, str(generated))
            # BuildExtension has one set of flags for all sources, and one object name for X.cpp and X.cu. So each
            # variant, the unfused files and the device code are compilations of their own in folders of their own,
            # where ninja keeps what has not changed.
            groups = {variant: (kernel_files(variant), flags) for variant, flags in variants().items()}
            groups["unfused"] = (unfused_files(), UNFUSED_FLAGS)
            if toolkit is not None:
                groups["device"] = (sorted(str(path) for path in CSRC.glob("cuda/*.cu")), [])
            for folder, (sources, flags) in groups.items():
                ext.extra_objects += self.compiler.compile(
                    sources,
                    output_dir=str(temporary / folder),
                    include_dirs=ext.include_dirs,
                    extra_postargs={
                        "cxx": [*ext.extra_compile_args["cxx"], *flags],
                        "nvcc": list(ext.extra_compile_args["nvcc"]),
                    },
                )
            super().build_extension(ext)

    return BuildWithVariants.with_options(use_ninja=True)


def write_facts(path: Path, torch: Any, toolkit: tuple[Path, str] | None) -> None:
    """Write what the marker string in the extension says; unchanged facts leave the file, and its objects, alone."""
    arch_list = os.environ["TORCH_CUDA_ARCH_LIST"] if toolkit else ""
    first_line = subprocess.run(
        [*shlex.split(cxx_compiler() or "c++"), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    facts = {
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cuda": toolkit[1] if toolkit else None,
        "cuda_arch": [arch for arch in re.split(r"[ ;]+", arch_list) if arch],
        "isa": list(variants()),
        "compiler": first_line,
    }
    # Members without the braces: csrc/module.cpp adds what only the sources know.
    text = (
        "// Written by setup.py.\n#pragma once\n"
        f"#define EQV_BUILD_FACTS {json.dumps(json.dumps(facts)[1:-1])}\n"
        f"#define EQV_CUDA_ARCH_LIST {json.dumps(arch_list)}\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


os.chdir(ROOT)
setup(**build_machinery())
