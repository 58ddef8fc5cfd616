"""One rollout and its gradients through each door, by plain HTTP."""

import httpx
import numpy as np

NAMES = ("x0", "parameters", "controls")


def through_each_door(url, key, model, times, weights, **given):
    """What each door answers of one row, in float64: ``x``, and gradients by name.

    Args:
        url: Of the service.
        key: Of the caller, sent as a password.
        model: A version, ``name/3``.
        times: Output times.
        weights: Of each number of ``x`` in the sum whose gradients are asked for.
        **given: What the model takes: ``x0``, ``parameters``, ``controls`` with their
            ``control_times``.
    """
    row = {name: np.asarray(each, float) for name, each in given.items()}
    times, weights = np.asarray(times), np.asarray(weights)
    with httpx.Client(
        base_url=url, auth=("key", key), timeout=280, trust_env=False
    ) as http:
        http.headers["request-timeout"] = "280"

        def ask(path, **body):
            answer = http.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        return {
            "umbridge": _umbridge(ask, model, times, weights, row),
            "open_inference": _open_inference(ask, model, times, row),
            "tesseract": _tesseract(ask, model, times, weights, row),
        }


def _umbridge(ask, model, times, weights, row):
    config = {"times": times.tolist(), "precision": "float64"}
    if "control_times" in row:
        config["control_times"] = row["control_times"].tolist()
    names = [name for name in NAMES if name in row]
    vectors = [row[name].ravel().tolist() for name in names]
    call = {"name": model, "input": vectors, "config": config}
    (x,) = ask(f"/umbridge/{model}/Evaluate", **call)["output"]
    found = {"x": np.reshape(x, weights.shape)}
    call |= {"outWrt": 0, "sens": weights.ravel().tolist()}
    for index, name in enumerate(names):
        gradient = ask(f"/umbridge/{model}/Gradient", **call, inWrt=index)["output"]
        found[name] = np.reshape(gradient, row[name].shape)
    return found


def _open_inference(ask, model, times, row):
    name, version = model.split("/")
    arrays = {each: row[each][None] for each in NAMES if each in row}
    arrays |= {each: row[each] for each in ("control_times",) if each in row}
    answer = ask(
        f"/v2/models/{name}/versions/{version}/infer",
        inputs=[
            {
                "name": each,
                "shape": list(array.shape),
                "datatype": "FP64",
                "data": array.ravel().tolist(),
            }
            for each, array in (arrays | {"times": times}).items()
        ],
        outputs=[{"name": "x"}],
        parameters={"precision": "float64"},
    )
    (x,) = answer["outputs"]
    (only,) = np.reshape(x["data"], x["shape"])
    return {"x": only}


def _tesseract(ask, model, times, weights, row):
    arrays = {name: each.tolist() for name, each in (row | {"times": times}).items()}
    inputs = arrays | {"precision": "float64"}
    names = [name for name in NAMES if name in row]
    answers = ask(f"/tesseract/{model}/apply", inputs=inputs)
    answers |= ask(
        f"/tesseract/{model}/vector_jacobian_product",
        inputs=inputs,
        vjp_inputs=names,
        vjp_outputs=["x"],
        cotangent_vector={"x": weights.tolist()},
    )
    return {
        name: np.reshape(each["data"]["buffer"], each["shape"])
        for name, each in answers.items()
    }
