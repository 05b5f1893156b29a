"""Documents about this machine: of `maml check` and `maml info`."""

from pydantic import Field

from maml_cli.documents.shape import Document, Number, Shape


class Case(Shape):
    """A number with its expected value."""

    name: str = Field(description="example or learner, and quantity")
    expected: Number = Field(description="value derived by hand, or computed by an independent implementation")
    obtained: Number = Field(description="value computed by the code that trains")
    tolerance: Number = Field(description="largest absolute difference that passes")
    passed: bool = Field(description="whether the two agree to the tolerance")


class CheckDocument(Document):
    """Checks of the gradients on this machine."""

    passed: bool = Field(description="whether all checks passed; if not, the command exits with 1")
    cases: list[Case] = Field(description="the checks, in their order")


VERSION = "version of the package; not installed if it is absent"


class InfoDocument(Document):
    """Versions, devices, threads and the compiler."""

    maml: str = Field(description="version of maml")
    python: str = Field(description="version of Python")
    torch: str = Field(description="version of PyTorch with its build, such as 2.13.0+cpu")
    typer: str = Field(description=VERSION)
    pydantic: str = Field(description=VERSION)
    pyyaml: str = Field(description=VERSION)
    matplotlib: str = Field(description=VERSION)
    rich: str = Field(description=VERSION)
    tqdm: str = Field(description=VERSION)
    numpy: str = Field(description=VERSION)
    scipy: str = Field(description=VERSION)
    platform: str = Field(description="operating system, its release, and the kind of processor")
    executable: str = Field(description="path of the Python interpreter")
    devices: str = Field(description="devices that --device takes here, the fastest first, separated by commas")
    cpu_cores: int = Field(ge=1, alias="cpu cores", description="number of CPU cores")
    threads: int = Field(ge=1, description="CPU threads of an evaluation; training uses run.threads")
    cpu_capability: str = Field(alias="cpu capability", description="vector instructions that PyTorch uses, as AVX2")
    cuda: str = Field("", description="version of CUDA and name of the GPU; absent without one")
    compiler: str = Field(description="C++ compiler of the engine native, or why there is none")
