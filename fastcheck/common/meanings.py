"""What people's names for arrays, options, layers and losses mean here, and what has no name here."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAME = tuple(
    frozenset(line.split())
    for line in """
    input x inp inputs image images img data xin xtrain aprev
    x features
    weight w weights kernel kernels filter filters k wgt theta gamma scale
    bias b biases beta usebias
    output y z out outputs result
    y labels label target targets t ytrue ytrain classes
    gradoutput dout delta upstream cotangent v gradout
    stride strides s subsample strd step windowstrides
    padding pad pads p padd zeropadding zeropad
    paddingmode padmode bordermode
    zeros zero constant
    reflect mirror reflection
    replicate edge nearest replication
    circular wrap periodic
    dilation dilations dilationrate
    groups group featuregroupcount numgroups ngroups
    transposed transpose istransposed
    outputpadding outpadding outpad outputpad adj
    precision dtype
    layout dataformat
    kernelsize kernel size kernelshape ksize filtersize poolsize windowshape k
    outchannels out filters features cout outplanes
    inchannels in cin inplanes
    outfeatures units features out outputdim hiddensize
    infeatures inputdim
    eps epsilon
    step h eps epsilon stepsize delta
    grads grad gradient gradients
    params parameters param weights
    threads nthreads numthreads workers jobs njobs
    threads threading thread
    processes process multiprocessing loky joblib fork spawn mpi dask
    vectorized vectorised vectorize vectorise vmap batched
    executor backend parallel pool
    seed randomstate
    dims n samples ndims
    p rate prob
    negativeslope alpha slope
    frozen eval training inference
    shares share sharedwith sharesparameters sharedweights tied tiedto tiewith weightsfrom reuse reuses
    runningmean movingmean mean
    runningvar movingvariance movingvar variance var
    conv conv1d conv2d conv3d convolution convolution1d convolution2d convolution3d depthwiseconv2d
    convtranspose convtranspose1d convtranspose2d convtranspose3d conv1dtranspose conv2dtranspose conv3dtranspose deconv
    convtranspose deconv1d deconv2d deconv3d deconvolution transposedconv
    embedding embeddings lookup lookuptable
    numembeddings inputdim vocabsize numrows
    embeddingdim outputdim embeddim embeddingsize
    dense linear fullyconnected fc innerproduct gemm
    maxpool maxpool1d maxpool2d maxpool3d maxpooling maxpooling1d maxpooling2d maxpooling3d
    avgpool avgpool1d avgpool2d avgpool3d averagepooling averagepooling1d averagepooling2d averagepooling3d
    globalavgpool adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d globalaveragepooling globalaveragepooling1d
    globalavgpool globalaveragepooling2d globalaveragepooling3d globalaveragepool gap
    batchnorm batchnorm1d batchnorm2d batchnorm3d batchnormalization bn
    layernorm layernormalization ln
    groupnorm groupnormalization gn
    instancenorm instancenorm1d instancenorm2d instancenorm3d instancenormalization
    prelu parametricrelu
    numgroups groups ngroups
    numparameters nparameters
    dropout dropout1d dropout2d dropout3d spatialdropout2d
    relu rectifier rectifiedlinear
    leakyrelu lrelu
    silu swish
    sigmoid expit
    concat concatenate cat
    add residual sum shortcut
    softmaxcrossentropy crossentropy crossentropyloss categoricalcrossentropy
    softmaxcrossentropy softmax softmaxloss
    softmaxcrossentropy sparsecategoricalcrossentropy nll nllloss xent
    squarederror mse mseloss meansquarederror l2loss
    multiclasshinge hinge svm svmloss multimarginloss hingeloss
    logistic bce bceloss bcewithlogits bcewithlogitsloss binarycrossentropy
    """.splitlines()
    if line.strip()
)
"""Names that mean the same, each line of them in lower case and without marks. Which one is ours depends on where the
name stands: a ``kernel`` is a weight among arrays, and a ``kernel_size`` among the options of a layer."""

_GRADIENT = re.compile(
    r"(?:gradients?|grads?|dl_d|dloss_d|dl|d|g)_?(?P<after>.+)|(?P<before>.+?)[_.]?(?:gradients?|grads?)", re.IGNORECASE
)
_AFFIXES = re.compile(r"^conv\d*d?_|\d+$|(?:(?<=stride)|(?<=pad)|(?<=padding)|(?<=dilation))_?[hwd]$", re.IGNORECASE)
"""Parts of a name that do not change its meaning: the layer before it, its number, and an axis."""

_OPERANDS = ("input", "weight", "bias", "output")

TRANSPOSED = "a transposed convolution is a case, ConvCase(transposed=True), or a network's layer, conv_transpose"
"""How to check a transposed convolution."""

COUNTER = "num_batches_tracked"
"""Array of a batch normalisation that no result depends on."""

STATISTICS = ("running_mean", "running_var")
"""Arrays of a batch normalisation without a gradient, which it does not read in training."""

_ABSENT = "fastcheck has no such layer; fastcheck.check_gradient checks any function"
_IN_SHAPES = "the arrays' shapes say it: leave it out"
_NUMBERS = "give its numbers as stride and padding"
_IN_LOSS = "the loss has it: loss = 'softmax_cross_entropy'"

_REMARKS = {
    name: remark
    for remark, names in {
        TRANSPOSED: """convtranspose convtranspose1d convtranspose2d convtranspose3d conv1dtranspose conv2dtranspose
            conv3dtranspose deconv deconv2d deconvolution transposed transposedconv outputpadding""",
        _ABSENT: """lstm lstmcell gru grucell rnn rnncell simplernn bidirectional attention multiheadattention
            transformer transformerencoderlayer rmsnorm
            bilinear upsample upsampling2d pixelshuffle separableconv2d selu mish hardswish hardsigmoid relu6""",
        _IN_LOSS: "logsoftmax crossentropyloss softmaxcrossentropy",
        _IN_SHAPES: """kernelsize ksize size inchannels outchannels infeatures outfeatures kernelshape inputshape shape
            batchsize numfilters nfilters""",
        _NUMBERS: """convparam convparams param params hyperparams hyperparameters hparam hparams hp config cfg conf
            convconfig convcfg convargs convkwargs args kwargs options opts settings attrs""",
        "fastcheck has no tolerance: each dimension has an error bar": """tol atol rtol abstol reltol tolerance
            threshold maxerror""",
        "an activation is a layer of its own": "activation nonlinearity",
        "no gradient depends on it: leave it out": "momentum inplace trackrunningstats numbatchestracked",
    }.items()
    for name in names.split()
}
"""What to do about a name that has no counterpart here."""


def meant(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that means what a user's name means, or None.

    ``dW``, ``weight_grad`` and ``conv1.weight.grad`` all mean ``grad_weight``.
    """
    names = list(known)
    prefix, dot, last = str(name).rpartition(".")
    if dot and last.lower() not in ("grad", "gradient"):
        beside = {other.removeprefix(f"{prefix}."): other for other in names if other.startswith(f"{prefix}.")}
        tail = _meant(last, list(beside))
        return beside[tail] if tail else _meant(last, names)
    return _meant(str(name), names)


def remark(name: object) -> str:
    """Return what to do about a name without a counterpart; an empty string where nothing is known of it."""
    return _REMARKS.get(_plain(str(name).rpartition(".")[2]), "")


def is_configuration(name: object) -> bool:
    """Whether a name is that of a collection of arguments, such as ``conv_param``."""
    return remark(name) == _NUMBERS


def decides(name: object) -> bool:
    """Whether a name without a counterpart is that of a value that changes what a layer computes."""
    return remark(name) in (_NUMBERS, TRANSPOSED)


def _meant(name: str, names: list[str]) -> str | None:
    plain = {_plain(other): other for other in names}
    word = _plain(name)
    if word in plain or not word:
        return plain[word] if word else None
    same = (plain[other] for group in _SAME if word in group for other in plain if other in group)
    found = next(same, None) or _gradient(name, plain)
    bare = _AFFIXES.sub("", name)
    return found or (_meant(bare, names) if bare not in ("", name) else None)


def _gradient(name: str, plain: dict[str, str]) -> str | None:
    """Return the known name of a gradient: ``grad_weight``, or ``weight`` where only gradients are named."""
    parts = _GRADIENT.fullmatch(name)
    if parts is None:
        return None
    operand = _operand((parts["after"] or parts["before"]).rpartition(".")[2])
    return None if operand is None else plain.get(f"grad{operand}") or plain.get(operand)


def _operand(name: str) -> str | None:
    word = _plain(name)
    return next((ours for ours in _OPERANDS for group in _SAME if ours in group and word in group), None)


def _plain(name: str) -> str:
    """Return a name in lower case, and without marks."""
    return re.sub(r"[\W_]", "", name.lower())
