"""Why a job is where it is: a code for programs and a text for people."""

from __future__ import annotations

from msgspec import Struct

from dstack.errors import DstackError, ErrorCode
from dstack.model.job.status import Status
from dstack.model.text.code import Code


class ReasonCode(Code):
    """Every `reason_code`, in the order of a job's life."""

    HELD = "held", "Someone holds the job in the queue."
    WAITING_FOR_DEPENDENCY = "waiting-for-dependency", "A job that it depends on has not finished."
    RESTORED = (
        "restored",
        "An older state was restored; a runner that may already have the job has not answered since.",
    )
    WAITING_FOR_SAME_JOB = "waiting-for-same-job", "Another run is already running the same job; the result is shared."
    NO_RUNNER_KNOWN = "no-runner-known", "No runner has been added."
    NO_MATCHING_RUNNER = "no-matching-runner", "No runner has the name or label that the run or the workflow asks for."
    MOUNT_NOT_ALLOWED = "mount-not-allowed", "No runner allows all of the workflow's mounts."
    NEEDS_MORE_THAN_ANY_RUNNER_HAS = (
        "needs-more-than-any-runner-has",
        "No runner could hold the job, even if nothing else ran there.",
    )
    USER_GPU_LIMIT = "user-gpu-limit", "The user already holds as many GPUs as one user may."
    RUNNER_BUSY = "runner-busy", "The closest runner has too few free GPUs, CPUs, memory or places for jobs."
    RESERVED_FOR_OTHER_JOB = "reserved-for-other-job", "The closest runner keeps its free share for a job ahead of it."
    NOT_ENOUGH_DISK = "not-enough-disk", "The closest runner has less free disk than the job requests."
    RUNNER_BEING_CHECKED = "runner-being-checked", "The closest runner has not been checked yet."
    RUNNER_UNREACHABLE = "runner-unreachable", "The runner, or Docker on it, does not answer."
    RUNNER_UNUSABLE = "runner-unusable", "The closest runner answers but can't run jobs; see `dstack runners check`."
    RUNNER_DRAINED = "runner-drained", "The closest runner is drained: it accepts no new jobs."
    RUNNER_UNAVAILABLE = "runner-unavailable", "The closest runner's dstack-runner doesn't offer it now."
    PULLING_IMAGE = "pulling-image", "The runner is pulling the image; see `progress`."
    IMAGE_NOT_FOUND = "image-not-found", "The registry has no such image."
    IMAGE_PULL_FAILED = "image-pull-failed", "The image could not be pulled for a reason without a code of its own."
    IMAGE_REMOVED = "image-removed", "The image was removed from the runner before the container started."
    IMAGE_UNSUITABLE = "image-unsuitable", "The image lacks /bin/sh, the user or the runner's architecture."
    REGISTRY_LOGIN = "registry-login", "The registry requires a login, or rejected it."
    REGISTRY_UNREACHABLE = "registry-unreachable", "The runner can't reach the registry, or doesn't trust it."
    RATE_LIMITED = "rate-limited", "The registry's rate limit was reached."
    NO_CONTAINER_TOOLKIT = "no-container-toolkit", "Containers on the runner can't use its GPUs."
    GPU_DRIVER = "gpu-driver", "The runner's GPU driver fails."
    GPU_GONE = "gpu-gone", "A GPU of the job disappeared from the runner."
    SECRET_MISSING = "secret-missing", "A secret that the job needs is not set, or was deleted."
    CODE_DAMAGED = "code-damaged", "The server's copy of the code is damaged; running it again sends the code again."
    CONTAINER_NOT_STARTED = "container-not-started", "The container did not start for another reason."
    RUNNER_ERROR = "runner-error", "Something on the runner failed; the text says what."
    CONTAINER_PAUSED = "container-paused", "Somebody paused the job's container."
    SERVER_COPIED = "server-copied", "Another server with the same id drives the jobs on the runner."
    UPLOADING = "uploading", "The artifacts are being stored; see `progress`."
    STOPPING = "stopping", "The job is being stopped and still stores its artifacts."
    STORAGE_UNAVAILABLE = "storage-unavailable", "The artifact store can't be reached, or refused a request."
    EXIT_CODE = "exit-code", "The commands failed; `exit_code` is theirs."
    OUT_OF_MEMORY = "out-of-memory", "The kernel killed the container or one of its processes."
    DISK_FULL = "disk-full", "The runner's disk is full, or probably is."
    KILLED = "killed", "A signal killed the container, and dstack did not send it."
    MAX_DURATION = "max-duration", "The job ran for longer than its `max-duration`."
    ARTIFACT_MISSING = "artifact-missing", "An artifact was not produced or can't be stored, or is no longer stored."
    ARTIFACT_CONFLICT = "artifact-conflict", "Two dependencies have different content at the same path."
    STOPPED_BY_USER = "stopped-by-user", "`dstack stop` stopped it."
    BEATEN = "beaten", "A sweep's `stop-early` rule stopped the trial: others did better."
    ABORTED = "aborted", "`dstack stop --abort` stopped it, and nothing was stored."
    PREEMPTED = "preempted", "It gave way to a job of higher priority, and is queued again."
    SWEEP_STOPPED = "sweep-stopped", "`dstack sweep stop` stopped it."
    WITHDRAWN = "withdrawn", "It waited in the queue for longer than `--timeout`."
    DEPENDENCY_FAILED = "dependency-failed", "A job that it depends on failed, was stopped or was lost."
    SPACE_USED_UP = "space-used-up", "The sweep has tried every combination of its values."
    MAX_FAILURES = "max-failures", "As many of the sweep's trials failed as `max-failures` allows."
    METRIC_MISSING = "metric-missing", "The sweep's metric was not found in the log of a trial, or of any."
    TRIAL_REFUSED = "trial-refused", "The run of a trial could not be submitted; the text says why."
    TRIALS_FAILED = "trials-failed", "No trial of the sweep is done."
    RUN_DELETED = "run-deleted", "The run of a trial was deleted before it had ended."
    LOST_HOST_RESTARTED = "lost-host-restarted", "The runner restarted while the job was running."
    LOST_DOCKER_RESTARTED = "lost-docker-restarted", "Docker restarted on the runner, which ended the container."
    LOST_STOPPED = "lost-stopped", "The container was told to end, and dstack did not do it."
    LOST_REMOVED = "lost-removed", "The container or the job's folder was removed, and dstack did not do it."
    SERVER_DISK_FULL = "server-disk-full", "The server's disk is full; the job goes on once there is space."
    SERVER_TROUBLE = "server-trouble", "The server can't record or read its state now; the job goes on once it can."
    RECORD_DAMAGED = "record-damaged", "The job's record in the server's database was damaged, and was set aside."
    INTERNAL_ERROR = "internal-error", "Something in dstack itself failed; see `dstack server logs`."


class Reason(Struct, frozen=True):
    """One plain sentence for users. `code` is None for a reason that a version without codes recorded."""

    code: ReasonCode | None
    text: str


ERRORS = {
    ErrorCode.HOST_UNREACHABLE: ReasonCode.RUNNER_UNREACHABLE,
    ErrorCode.CONNECTION_REFUSED: ReasonCode.RUNNER_UNREACHABLE,
    ErrorCode.HOST_KEY: ReasonCode.RUNNER_UNUSABLE,
    ErrorCode.HOST_KEY_UNKNOWN: ReasonCode.RUNNER_UNUSABLE,
    ErrorCode.HOST_LOGIN: ReasonCode.RUNNER_UNUSABLE,
    ErrorCode.SERVER_COPIED: ReasonCode.SERVER_COPIED,
    ErrorCode.HOST_COMMAND: ReasonCode.RUNNER_ERROR,
    ErrorCode.HOST: ReasonCode.RUNNER_ERROR,
    ErrorCode.STORAGE: ReasonCode.STORAGE_UNAVAILABLE,
    ErrorCode.SERVER_DISK_FULL: ReasonCode.SERVER_DISK_FULL,
    ErrorCode.STATE_BUSY: ReasonCode.SERVER_TROUBLE,
    ErrorCode.STATE_DAMAGED: ReasonCode.SERVER_TROUBLE,
    ErrorCode.SERVER_FAILED: ReasonCode.SERVER_TROUBLE,
}


def failed_with(error: DstackError) -> ReasonCode:
    """Return the code of a job that met this error: a reason's, if it was raised with one."""
    if isinstance(error.code, ReasonCode):
        return error.code
    return next((code for known, code in ERRORS.items() if known == error.code), ReasonCode.INTERNAL_ERROR)


def reason_code(status: Status, reason: Reason | None) -> ReasonCode | None:
    """Return the code of a job or an attempt. One that failed for no other reason failed with its exit code."""
    if reason is None:
        return ReasonCode.EXIT_CODE if status is Status.FAILED else None
    return reason.code


def preempted(by: str) -> Reason:
    """The job gave way; `by` is the other run with its user."""
    return Reason(ReasonCode.PREEMPTED, f"preempted by {by}")
