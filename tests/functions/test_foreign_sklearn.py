"""scikit-learn's hand-written gradients: of losses, Gaussian processes, kernels, a perceptron and t-SNE."""

import warnings

import numpy as np
import pytest
from foreign import Foreign, normals

import fastcheck

gaussian_process = pytest.importorskip("sklearn.gaussian_process")
from sklearn._loss import loss as losses  # noqa: E402
from sklearn.gaussian_process import kernels  # noqa: E402
from sklearn.manifold import _t_sne as t_sne  # noqa: E402
from sklearn.neural_network import MLPRegressor  # noqa: E402

(RAW,) = normals((12,))
COUNTS = np.random.default_rng(1).integers(0, 4, 12).astype(float)
X, Y = normals((10, 2), (10,), seed=3)


@pytest.mark.parametrize(
    ("loss", "other", "target"),
    [
        (losses.HalfSquaredError(), losses.HuberLoss(delta=0.4), COUNTS),
        (losses.HalfPoissonLoss(), losses.HalfGammaLoss(), COUNTS),
        (losses.HalfGammaLoss(), losses.HalfPoissonLoss(), COUNTS + 1),
        (losses.HalfTweedieLoss(power=1.5), losses.HalfTweedieLoss(power=1.51), COUNTS),
        (losses.HalfBinomialLoss(), losses.ExponentialLoss(), (COUNTS > 1) * 1.0),
        (losses.PinballLoss(quantile=0.3), losses.PinballLoss(quantile=0.7), COUNTS),
        (losses.HuberLoss(delta=0.8), losses.HuberLoss(delta=0.9), COUNTS),
    ],
    ids=lambda one: type(one).__name__,
)
def test_losses(loss, other, target):
    def backward(v, raw, of=loss):
        return v * of.gradient(target, raw.copy())

    Foreign(
        lambda raw: loss.loss(target, raw.copy()),
        backward,
        (RAW,),
        {"another loss": lambda v, raw: backward(v, raw, other), "mean": lambda v, raw: backward(v, raw) / len(raw)},
    ).judge()


def test_the_multinomial_loss_of_all_classes():
    loss, target = losses.HalfMultinomialLoss(n_classes=4), COUNTS.clip(0, 3)

    def backward(v, raw):
        return v[:, None] * loss.gradient(target, raw.copy())

    Foreign(
        lambda raw: loss.loss(target, raw.copy()),
        backward,
        normals((12, 4)),
        {
            "classes in another order": lambda v, raw: backward(v, raw)[:, ::-1],
            "winners alone": lambda v, raw: backward(v, raw) * (np.arange(4) == target[:, None]),
        },
    ).judge()


KERNELS = {
    "rbf": (kernels.RBF, {"length_scale": [0.7, 1.4]}),
    "matern": (kernels.Matern, {"length_scale": [0.7, 1.4], "nu": 1.5}),
    "rational quadratic": (kernels.RationalQuadratic, {"length_scale": 0.8, "alpha": 0.6}),
    "periodic": (kernels.ExpSineSquared, {"length_scale": 0.8, "periodicity": 1.7}),
    "dot product": (kernels.DotProduct, {"sigma_0": 0.9}),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_by_their_hyperparameters(name):
    kind, options = KERNELS[name]
    kernel = 1.3 * kind(**options) + kernels.WhiteKernel(0.2)

    def backward(v, theta):
        return np.einsum("ij,ijk->k", v, kernel.clone_with_theta(theta)(X, eval_gradient=True)[1])

    Foreign(
        lambda theta: kernel.clone_with_theta(theta)(X),
        backward,
        (kernel.theta,),
        {
            "parameters for their logarithms": lambda v, theta: backward(v, theta) / np.exp(theta),
            "lower triangle": lambda v, theta: backward(np.tril(v), theta),
            "noise forgotten": lambda v, theta: backward(v, theta) * ([1] * (len(theta) - 1) + [0]),
        },
    ).judge()


@pytest.mark.parametrize(
    "model",
    [
        gaussian_process.GaussianProcessRegressor(kernels.ConstantKernel(1.2) * kernels.RBF(0.9), optimizer=None),
        gaussian_process.GaussianProcessClassifier(kernels.ConstantKernel(1.2) * kernels.RBF(0.9), optimizer=None),
    ],
    ids=lambda model: type(model).__name__,
)
def test_likelihoods_of_gaussian_processes(model):
    classifies = "Classifier" in type(model).__name__
    model = model.fit(X, Y > 0 if classifies else Y)
    theta = model.kernel_.theta

    def loss(at):
        return model.log_marginal_likelihood(at)

    def grad(at):
        return model.log_marginal_likelihood(at, eval_gradient=True)[1]

    # Newton's iteration for the classifier's mode stops where the likelihood rises by less than 1e-10.
    options = {"noise": 1e-10} if classifies else {}
    assert fastcheck.check_gradient(loss, grad, theta, **options)
    for wrong in (lambda at: -grad(at), lambda at: grad(at) / np.exp(at), lambda at: grad(at)[::-1]):
        assert fastcheck.check_gradient(loss, wrong, theta, **options).verdict == "fail"


def _perceptron(alpha=0.1):
    """The loss of a perceptron and its gradient: what a step of gradient descent by 1 takes off its weights."""
    model = MLPRegressor(
        hidden_layer_sizes=3,
        activation="tanh",
        solver="sgd",
        alpha=alpha,
        batch_size=10,
        learning_rate_init=1.0,
        momentum=0.0,
    )
    model.partial_fit(X, Y)

    def stepped(params):
        model.coefs_ = [params[f"w{layer}"].copy() for layer in range(2)]
        model.intercepts_ = [params[f"b{layer}"].copy() for layer in range(2)]
        model.partial_fit(X, Y)
        return model

    def grad(params):
        after = stepped(params)
        return {
            f"{letter}{layer}": params[f"{letter}{layer}"] - arrays[layer]
            for letter, arrays in (("w", after.coefs_), ("b", after.intercepts_))
            for layer in range(2)
        }

    return lambda params: stepped(params).loss_, grad


def test_a_perceptrons_backpropagation():
    (loss, grad), (_, without_penalty) = _perceptron(), _perceptron(alpha=0.0)
    params = dict(zip(("w0", "w1", "b0", "b1"), normals((2, 3), (3, 1), (3,), (1,)), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step is no convergence
        assert fastcheck.check_gradient(loss, grad, params)
        assert fastcheck.check_gradient(loss, without_penalty, params).verdict == "fail"
        doubled = fastcheck.check_gradient(loss, lambda p: grad(p) | {"b1": 2 * grad(p)["b1"]}, params)
    assert [name for name, tensor in doubled.tensors.items() if not tensor.passed] == ["b1"]


def test_divergences_of_t_sne():
    p = np.random.default_rng(4).uniform(0.1, 1, 45)
    p /= 2 * p.sum()  # distances between ten points, each of which counts twice

    def run(points, dof=1.0):
        return t_sne._kl_divergence(points.copy(), p, dof, 10, 2)

    (points,) = normals((20,))
    assert fastcheck.check_gradient(lambda at: run(at)[0], lambda at: run(at)[1], points)
    wrong = (lambda at: run(at)[1] / 4, lambda at: run(at, 2.0)[1], lambda at: run(at)[1] - run(at)[1].mean() - 1e-3)
    for grad in wrong:
        assert fastcheck.check_gradient(lambda at: run(at)[0], grad, points).verdict == "fail"
