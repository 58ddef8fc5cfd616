// Losses of a training as one curve: stages count from 0, one after another.

import { curves } from "./plots.js";

/** Stages of one name are told apart by their number, as the horizons of a curriculum. */
const stageOf = (point) => `${point.stage} ${point.part || 0}`;

/** Add what was told; a new attempt goes over the same iterations again. */
export function addLoss(points, point) {
  const at = points.findIndex((each) => stageOf(each) === stageOf(point) && each.iteration >= point.iteration);
  if (at >= 0) points.length = at;
  points.push(point);
}

export function lossCurve(points) {
  return curves("Loss", lossesOf(points), { x: { label: "iteration" }, y: { label: "loss", log: true } });
}

/** Training and held-out losses over iterations of all stages. */
export function lossesOf(points) {
  const [x, train, held] = [[], [], []];
  let before = 0, last = 0, stage = null;
  for (const point of points) {
    if (stageOf(point) !== stage) [before, stage] = [last, stageOf(point)];
    last = before + point.iteration;
    x.push(last);
    train.push(point.loss ?? null);
    held.push(point.validation_loss ?? null);
  }
  return [{ label: "training", x, y: train }, { label: "held out", x, y: held, dash: [6, 4] }];
}
