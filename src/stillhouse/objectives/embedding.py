"""Students that encode: vectors by which passages are found (SK11, J9, R55; Eq. 11 on whole texts).

Legend: G records, each a query with its passages; S passages, T texts (queries and passages), H the student's width, E the
teacher's. `scores_S` says how good a passage is (more is better; a row's only passage is its best). Sums over records;
what `weight_G` weighs. What reads `batch_...` looks at a batch as one set, which cannot be cut into micro-batches.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize

from stillhouse.errors import RecipeError
from stillhouse.kernels.groups import best_first, better, group_sum, mean_of_pairs

__all__ = ["cosine", "in_batch", "margin_mse", "similarity_kl", "squared"]


def in_batch(
    query_vectors_GH: Tensor,
    batch_passage_vectors_SH: Tensor,
    group_S: Tensor,
    scores_S: Tensor,
    text_S: Tensor,
    weight_G: Tensor,
    *,
    temperature: float = 0.05,
) -> Tensor:
    """-log of the share that a query's best passage has in the softmax of cosines over all passages of the batch (InfoNCE).

    The other passages of its record are hard negatives, those of other records easy ones; a passage with the same text as
    the best (`text_S`) is neither. The result lies between 0 and log S + 2 / temperature. 0.05 is the field's default.
    Source: J9, R55 (arXiv 1807.03748, 2004.04906).
    """
    if not temperature > 0:
        raise RecipeError(f"embedding.in_batch: temperature {temperature} must be above 0, e.g. 0.05")
    logits_GS = _unit(query_vectors_GH) @ _unit(batch_passage_vectors_SH).T / temperature
    best_G = best_first(scores_S, group_S, len(weight_G))[0][:, 0]
    same_GS = text_S[None, :] == text_S[best_G][:, None]
    same_GS[torch.arange(len(best_G)), best_G] = False
    loss_G = cross_entropy(logits_GS.masked_fill(same_GS, -torch.inf), best_G, reduction="none")
    return (weight_G * loss_G).sum()


def margin_mse(
    query_vectors_GH: Tensor, passage_vectors_SH: Tensor, group_S: Tensor, scores_S: Tensor, weight_G: Tensor
) -> Tensor:
    """Squared difference between the student's and the teacher's margins, over pairs of passages of one query.

    The student's score is the dot product, the teacher's is `scores_S` (a reranker's, on any scale with an origin of its
    own). The mean over a query's pairs of different score. Source: J9 (arXiv 2010.02666).
    """
    own_S = (query_vectors_GH[group_S] * passage_vectors_SH).sum(-1)
    gap_SS = (own_S[:, None] - own_S[None, :]) - (scores_S[:, None] - scores_S[None, :])
    return mean_of_pairs(gap_SS.square(), better(scores_S, group_S), group_S, weight_G)


def cosine(text_vectors_TH: Tensor, teacher_text_vectors_TE: Tensor, text_group_T: Tensor, weight_G: Tensor) -> Tensor:
    """1 - the cosine between the student's and the teacher's vector of a text; the mean over a record's texts.

    Raises RecipeError where the two have different widths: compare their similarities instead (`similarity_kl`).
    """
    _same_width(text_vectors_TH, teacher_text_vectors_TE, "cosine")
    apart_T = 1 - (_unit(text_vectors_TH) * _unit(teacher_text_vectors_TE)).sum(-1)
    return _mean_of_texts(apart_T, text_group_T, weight_G)


def squared(text_vectors_TH: Tensor, teacher_text_vectors_TE: Tensor, text_group_T: Tensor, weight_G: Tensor) -> Tensor:
    """Mean squared difference between the student's and the teacher's vector of a text; the mean over a record's texts.

    Source: multilingual and layer-reduced sentence encoders are distilled so (arXiv 2004.09813). Widths must be equal.
    """
    _same_width(text_vectors_TH, teacher_text_vectors_TE, "squared")
    return _mean_of_texts((text_vectors_TH - teacher_text_vectors_TE).square().mean(-1), text_group_T, weight_G)


def similarity_kl(
    query_vectors_GH: Tensor,
    batch_passage_vectors_SH: Tensor,
    teacher_text_vectors_TE: Tensor,
    query_T: Tensor,
    passage_T: Tensor,
    weight_G: Tensor,
    *,
    temperature: float = 0.05,
) -> Tensor:
    """KL(teacher || student) between softmaxes of cosines over the batch's passages, for any two widths.

    ART and QUILL do so with scores. `query_T` and `passage_T` are the places of queries and passages among the texts.
    Sources: R57, J9.
    """
    if not temperature > 0:
        raise RecipeError(f"embedding.similarity_kl: temperature {temperature} must be above 0, e.g. 0.05")
    theirs_TE = _unit(teacher_text_vectors_TE.to(query_vectors_GH.dtype))
    log_p_GS = log_softmax(theirs_TE[query_T] @ theirs_TE[passage_T].T / temperature, -1)
    log_q_GS = log_softmax(_unit(query_vectors_GH) @ _unit(batch_passage_vectors_SH).T / temperature, -1)
    return (weight_G * kl_div(log_q_GS, log_p_GS, reduction="none", log_target=True).sum(-1)).sum()


def _unit(vectors: Tensor) -> Tensor:
    return normalize(vectors, dim=-1)


def _mean_of_texts(value_T: Tensor, text_group_T: Tensor, weight_G: Tensor) -> Tensor:
    texts_G = torch.bincount(text_group_T, minlength=len(weight_G))
    return (weight_G * group_sum(value_T, text_group_T, len(weight_G)) / texts_G).sum()


def _same_width(one: Tensor, other: Tensor, name: str) -> None:
    if one.shape[-1] != other.shape[-1]:
        raise RecipeError(
            f"embedding.{name}: the student's vectors have {one.shape[-1]} numbers and the teacher's {other.shape[-1]}; "
            "compare their similarities (embedding.similarity_kl)"
        )
