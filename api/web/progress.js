// How far a job is and why it failed, in the words of the command line and docs/jobs.md.

import { duration, number } from "./elements.js";

/** How far a job is: rows, candidates, iterations, or what it says it does. */
export function said(progress) {
  if (!progress) return "";
  if (progress.rows_total)
    return `${number(progress.rows)} of ${number(progress.rows_total)} rows, ${progress.rows_per_second.toFixed(0)} rows/s`;
  if (progress.candidates) {
    const lost = progress.failed + progress.cancelled;
    return `${progress.succeeded} of ${progress.candidates} trained${lost ? `, ${lost} not` : ""}`;
  }
  if (!progress.iterations) return progress.message || progress.stage || "";
  return `${progress.stage} ${number(progress.iteration)} of ${number(progress.iterations)}`;
}

/** The part that is done; null where there is no telling. */
export function part(progress) {
  if (typeof progress.fraction === "number") return progress.fraction;
  return progress.iterations ? progress.iteration / progress.iterations : null;
}

/** Says how fast a job goes and how long it will: iterations since a stage was first seen. */
export function pace() {
  let begun = null;
  return (progress) => {
    const { stage, iteration, iterations, seconds, remaining_s: left } = progress;
    if (!begun || begun.stage !== stage || begun.iteration > iteration) begun = { stage, iteration, seconds };
    const passed = seconds - begun.seconds;
    return [said(progress), iterations && passed > 0 && `${number((iteration - begun.iteration) / passed)} per second`,
      left !== null && left !== undefined && `about ${duration(left)} left`].filter(Boolean).join(", ");
  };
}

/** What helps where a job failed, by the code of its error. */
export const HELPS = {
  invalid_input: "Change what was asked, and submit it anew.",
  training_error: "The sentence says what to change.",
  calibration_error: "Other starts or bounds.",
  artifact_error: "The sentence says what to change.",
  attempts_exhausted: "A smaller batch or a larger worker; then try again.",
  deadline_exceeded: "Try again, which gives the whole time again.",
  rollout_failed: '"on_error": "mask", or rows within the domain.',
  no_candidate_is_finite: "Other candidates.",
  not_found: "Restore it from a backup.",
  lost: "Restore it from a backup.",
  damaged: "Restore it from a backup.",
  model_name_taken: "Another name.",
};
