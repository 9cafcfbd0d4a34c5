"""Native errors of CUDA and of packages: their words without the C++ around them, and the command that repairs each.

Knows nothing of sessions. The extras are those of pyproject.toml.
"""

from __future__ import annotations

import importlib.util
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .driver import Driver

INSTALL_CPU, INSTALL_CUDA, INSTALL_CUDA12 = (
    f"pip install 'gan-toolchain[{extra}]'" for extra in ("cpu", "cuda", "cuda12")
)
UNINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu"
REINSTALL = f"{UNINSTALL} && {INSTALL_CUDA}"
ACCEPT_CPU = 'device="auto" accepts the CPU'
INSTALL_DRIVER = "Install the NVIDIA driver; start a container with --gpus all"
WORDS = (
    r"((?:CUDA|CUDNN|CUDNN_FE|CUBLAS|CUFFT|CURAND) failure -?\d+: [^;]*[^; ])",
    r"(Failed to allocate memory for requested buffer of size \d+)",
    r"(Invalid device ID: .+)",
    r"(cuDNN is .+)",
    r"(A module that was compiled using NumPy .+?),? as it may crash",
    r"Status Message: (.+)",
    r"with error: (.+)",
)
CPLUSPLUS = re.compile(
    r"/onnxruntime_src/\S+:\d+ .*\) (?=\w)"
)  # a place and a function's signature
SYSTEM_LIBRARIES = {  # packages of Debian and Ubuntu
    "libgomp": "libgomp1",
    "libstdc++": "libstdc++6",
    "libgcc_s": "libgcc-s1",
    "libz": "zlib1g",
}
CAUSES = (  # of a native reason, the first that is found in it
    (r"CUDA failure (100|38)\b|no CUDA-capable device", "{visible}"),
    (r"CUDA failure (101|10)\b|Invalid device ID", "Give one of: {gpus}"),
    (
        r"CUDA failure (35|222|804)\b|UnsupportedPtx|driver version is insufficient",
        "Update the NVIDIA driver, or take CUDA 12: {cuda12}",
    ),
    (
        r"CUDA failure (3|46|802|803|999)\b",
        "Restart the machine: the driver is not ready, or not of one version",
    ),
    (
        r"out of memory|Failed to allocate memory|ALLOC(ATION)?_FAILED|CUBLAS failure 3\b",
        "Free memory of the GPU (`nvidia-smi` lists who holds it), or take a smaller micro-batch",
    ),
    (
        r"no kernel image|NoKernelImage|CUDA failure 209\b",
        "Take an onnxruntime that was built for this GPU: {newest}; for one before Turing: {cuda12}",
    ),
    (r"libcuda\.so|nvcuda", INSTALL_DRIVER),
    (r"cuDNN is|(cublas|cudart|cudnn|cufft|curand|nvrtc|nvJitLink)\w*\.(so|dll)", "{install}"),
)


def native_words(error: object) -> str:
    """At most 300 characters of a native message, without the source files, templates and host name around them."""
    text = " ".join(str(error).split())
    found = next((match[1] for one in WORDS if (match := re.search(one, text))), text)
    return CPLUSPLUS.sub("", found)[:300]


def cuda_repair(reason: str, built: str, driver: Driver) -> str:
    """What repairs that CUDA is not used. built: the CUDA version that onnxruntime was built with, "" if unknown."""
    install = install_cuda(built, driver)
    if driver.cuda is None and not re.search(r"libcuda\.so|nvcuda", reason):
        return INSTALL_DRIVER + (f"; {install}" if re.search(r"\.(so|dll)\b", reason) else "")
    if driver.cuda and built and driver.cuda[0] < int(built.partition(".")[0]):
        return f"Update the NVIDIA driver, which runs CUDA {driver.cuda[0]}, or: {install}"
    for pattern, repair in CAUSES:
        if re.search(pattern, reason):
            return repair.format(
                install=install,
                cuda12=INSTALL_CUDA12,
                newest="pip install -U 'onnxruntime-gpu[cuda,cudnn]'",
                visible=_no_gpu(),
                gpus=", ".join(f"cuda:{i} ({name})" for i, name in enumerate(driver.gpus))
                or "those of `nvidia-smi -L`",
            )
    return system_repair(reason) or (
        f"Run `nvidia-smi`: if it fails, repair the driver, else: {UNINSTALL} && {install}"
    )


def install_cuda(built: str, driver: Driver) -> str:
    """The extra whose CUDA the driver can run, else that of the onnxruntime that is here."""
    version = f"{driver.cuda[0]}" if driver.cuda else built
    return INSTALL_CUDA12 if version.partition(".")[0] == "12" else INSTALL_CUDA


def _no_gpu() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return (
            f"CUDA_VISIBLE_DEVICES is {visible!r:.40}: unset it, or name a GPU of `nvidia-smi -L`"
        )
    return "`nvidia-smi -L` lists no GPU: start a container with --gpus all, or see to the card"


def system_repair(reason: str) -> str:
    """For a library of the operating system that is missing or too old; "" where none is named."""
    for library, package in SYSTEM_LIBRARIES.items():
        if f"{library}.so" in reason:
            return f"apt-get install {package} (Debian, Ubuntu), or what brings {library} elsewhere"
    return "Use a newer system" if "GLIBC" in reason else ""


def hiding_file(package: str) -> str | None:
    """A file that Python takes for this package, such as a torch.py in the current folder; None if there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # of a module that is half imported
        return None
    return spec.origin if spec and spec.submodule_search_locations is None else None


def install_again(packages: dict[str, str]) -> str:
    """The extra that brings what is installed, in a version that will do."""
    gpu = packages.get("onnxruntime-gpu")
    if gpu is None:
        return INSTALL_CPU
    return INSTALL_CUDA12 if re.match(r"1\.(1\d|2[0-6])\.", gpu) else INSTALL_CUDA


def package_repair(package: str, distribution: str, reason: str) -> str:
    """For a package that is there and cannot be imported."""
    hiding = hiding_file(package)
    if hiding:
        return f"Rename {hiding}, which hides {distribution}"
    return system_repair(reason) or f"pip install --force-reinstall --no-deps {distribution}"


def onnxruntime_repair(reason: str, packages: dict[str, str]) -> str:
    """For an onnxruntime that cannot be imported. packages: of its distributions, those that are installed."""
    hiding = hiding_file("onnxruntime")
    if hiding:
        return f"Rename {hiding}, which hides onnxruntime"
    install = install_again(packages)
    if re.search(r"(?i)numpy|_ARRAY_API|multiarray", reason):
        return f"pip install -U numpy && {install}"
    if system := system_repair(reason):
        return system
    if packages:  # pip takes what is left of it for the whole
        return f"{UNINSTALL} && {install}"
    return f"{INSTALL_CPU} (or gan-toolchain[cuda] for an NVIDIA GPU)"
