"""The one description of a surrogate and of its training.

The same frozen models are the arguments of ``fit``, the ``spec.json`` of an artifact,
the body of a training request and its OpenAPI schema. Unknown fields are errors, a
``kind`` chooses among families, and ``None`` means "decided from the data by the
preset". Nothing here imports JAX.
"""

from spnode_core.spec.base import (
    Spec,
)
from spnode_core.spec.calibration import PriorSpec, UnknownSpec, UnknownsSpec
from spnode_core.spec.certified import (
    LARGEST_CERTIFIED,
    certified_surrogate,
    check_certified_size,
)
from spnode_core.spec.intervals import IntervalsSpec
from spnode_core.spec.linear import (
    DenseSpec,
    DissipativeSpec,
    FixedSpec,
    HurwitzSpec,
    LinearSpec,
    ModalSpec,
    RatesSpec,
    SparseSpec,
    SymbolSpec,
)
from spnode_core.spec.nonlinear import (
    BilinearSpec,
    ContractingSpec,
    LipschitzSpec,
    MLPSpec,
    NonlinearSpec,
    NoNonlinearSpec,
    PolynomialSpec,
    QuadraticSpec,
    RelaxationSpec,
)
from spnode_core.spec.signature import (
    MOST_MEMBERS,
    SCHEMA_VERSION,
    ArtifactSpec,
    DomainSpec,
    Signature,
)
from spnode_core.spec.surrogate import (
    AutoencoderSpec,
    DataStepsSpec,
    GridStepsSpec,
    Integrator,
    NoAutoencoderSpec,
    PODSpec,
    ResidualSpec,
    ScalingKind,
    StepsSpec,
    SurrogateSpec,
    UniformStepsSpec,
)
from spnode_core.spec.training import (
    LEAST_AHEAD,
    OperatorInferenceSpec,
    Preset,
    PretrainingSpec,
    SplitSpec,
    StopSpec,
    TrainingSpec,
)
from spnode_core.spec.warm_start import check_warm_start

__all__ = [
    "LARGEST_CERTIFIED",
    "LEAST_AHEAD",
    "MOST_MEMBERS",
    "SCHEMA_VERSION",
    "ArtifactSpec",
    "AutoencoderSpec",
    "BilinearSpec",
    "ContractingSpec",
    "DataStepsSpec",
    "DenseSpec",
    "DissipativeSpec",
    "DomainSpec",
    "FixedSpec",
    "GridStepsSpec",
    "HurwitzSpec",
    "Integrator",
    "IntervalsSpec",
    "LinearSpec",
    "LipschitzSpec",
    "MLPSpec",
    "ModalSpec",
    "NoAutoencoderSpec",
    "NoNonlinearSpec",
    "NonlinearSpec",
    "OperatorInferenceSpec",
    "PODSpec",
    "PolynomialSpec",
    "Preset",
    "PretrainingSpec",
    "PriorSpec",
    "QuadraticSpec",
    "RatesSpec",
    "RelaxationSpec",
    "ResidualSpec",
    "ScalingKind",
    "Signature",
    "SparseSpec",
    "Spec",
    "SplitSpec",
    "StepsSpec",
    "StopSpec",
    "SurrogateSpec",
    "SymbolSpec",
    "TrainingSpec",
    "UniformStepsSpec",
    "UnknownSpec",
    "UnknownsSpec",
    "certified_surrogate",
    "check_certified_size",
    "check_warm_start",
]
