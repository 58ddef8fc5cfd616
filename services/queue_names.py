"""Which queue takes which jobs: one for each kind of work, and its twin for GPUs."""

TRAINING_QUEUE = "training"
DATASETS_QUEUE = "datasets"
ROLLOUT_JOBS_QUEUE = "rollout_jobs"
ROLLOUTS_QUEUE = "rollouts"
"""Batches that a gateway waits for, not jobs."""
JOB_QUEUES = (TRAINING_QUEUE, DATASETS_QUEUE, ROLLOUT_JOBS_QUEUE)
"""Those that any worker can take."""
QUEUE_OF_KIND = {
    "training": TRAINING_QUEUE,
    "dataset": DATASETS_QUEUE,
    "rollout": ROLLOUT_JOBS_QUEUE,
    "calibration": ROLLOUT_JOBS_QUEUE,
    "evaluation": ROLLOUT_JOBS_QUEUE,
    "sweep": ROLLOUT_JOBS_QUEUE,
}


def on_gpu(queue: str) -> str:
    """Return the name of a queue's twin, whose jobs need a GPU."""
    return f"{queue}.gpu"


GPU_QUEUES = (on_gpu(TRAINING_QUEUE), on_gpu(ROLLOUT_JOBS_QUEUE))
QUEUES = (*JOB_QUEUES, ROLLOUTS_QUEUE)
"""Those that every deployment has."""


def queue_of(kind: str, device: str = "any") -> str:
    """Return the queue of a job that needs a device, ``"any"`` or ``"gpu"``."""
    queue = QUEUE_OF_KIND[kind]
    twin = on_gpu(queue)
    return twin if device == "gpu" and twin in GPU_QUEUES else queue
