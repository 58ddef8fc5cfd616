"""Names of the files by which a job's process and its supervisor exchange contents."""

DATASET = "dataset.npz"
CHECKPOINT = "checkpoint"
ARTIFACT = "artifact.spnode"
