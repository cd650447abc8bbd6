"""Learning without labels: a network that knows each picture again in another view of it."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.errors import RecipeError, SampleError
from regraft.train.task import Batch
from regraft.vision.preprocess import Preprocess

GREY = (0.299, 0.587, 0.114)


class RandomView(nn.Module):
    """A random crop, mirror image and change of colours of each picture of a batch.

    The view of SimCLR (arXiv 2002.05709, appendix A) without its blur, which the paper leaves out for small
    pictures, and with saturation in place of hue. Draws from torch's global generator of their device.

    Args:
        preprocess: How the pictures were normalised; colours change before that.
        area: Smallest and largest share of the picture that a crop keeps, in (0, 1].
        jitter: Largest relative change of brightness, contrast and saturation, in [0, 1).
        grey: Chance of losing all colour, in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        area: tuple[float, float] = (0.2, 1.0),
        jitter: float = 0.4,
        grey: float = 0.2,
    ) -> None:
        super().__init__()
        if not 0 < area[0] <= area[1] <= 1 or not 0 <= jitter < 1 or not 0 <= grey <= 1:
            raise RecipeError(
                f"area is {area}, jitter {jitter:g} and grey {grey:g}; expected two ascending shares "
                "in (0, 1], a share in [0, 1) and a chance in [0, 1]."
            )
        self.area, self.jitter, self.grey = area, jitter, grey
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name)).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return one view of each normalised picture."""
        pixels = self._recoloured(self._cropped(x) * self.std + self.mean)
        return (pixels - self.mean) / self.std

    def _cropped(self, x: Tensor) -> Tensor:
        area = _uniform(x, *self.area)
        aspect = torch.exp(_uniform(x, -0.28768, 0.28768))  # 3:4 to 4:3
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        mirror = torch.where(_uniform(x, 0.0, 1.0) < 0.5, -1.0, 1.0)
        affine = torch.zeros(len(x), 2, 3, device=x.device)
        affine[:, 0, 0], affine[:, 1, 1] = width * mirror, height
        affine[:, 0, 2] = (1 - width) * _uniform(x, -1.0, 1.0)
        affine[:, 1, 2] = (1 - height) * _uniform(x, -1.0, 1.0)
        grid = nn.functional.affine_grid(affine, list(x.shape), align_corners=False)
        return nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _recoloured(self, pixels: Tensor) -> Tensor:
        gains = [_uniform(pixels, 1 - self.jitter, 1 + self.jitter).view(-1, 1, 1, 1) for _ in range(3)]
        brighter = pixels * gains[0]
        middle = brighter.mean((1, 2, 3), keepdim=True)
        contrasted = middle + (brighter - middle) * gains[1]
        if pixels.shape[1] == 1:
            return contrasted.clamp(0, 1)
        weights = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
        luminance = (contrasted * weights).sum(1, keepdim=True)
        saturation = torch.where(_uniform(pixels, 0.0, 1.0).view(-1, 1, 1, 1) < self.grey, 0.0, gains[2])
        return (luminance + (contrasted - luminance) * saturation).clamp(0, 1)


class Projected(nn.Module):
    """An encoder and the projector that its training alone needs (arXiv 2002.05709, section 4.2).

    Args:
        encoder: Maps pictures to `(b num_features)`.
        num_features: Its width.
        num_projected: Width that views are compared in.
    """

    def __init__(self, encoder: nn.Module, num_features: int, num_projected: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = nn.Sequential(
            nn.Linear(num_features, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(),
            nn.Linear(num_features, num_projected),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return projections of length one."""
        return nn.functional.normalize(self.projector(self.encoder(x)), dim=1)


class TellApart:
    """SimCLR: of all pictures in a batch, find the one that a view was made of (arXiv 2002.05709).

    Requirements:
        `model` maps `image` `(b c h w)` to vectors `(b d)` of length one, as `Projected` does. Labels are
        not read.

    Args:
        view: Makes one random view of each picture of a batch.
        held_out: Makes a pass over samples that are never trained on.
        temperature: Cosines are divided by this, above 0.
    """

    def __init__(
        self,
        model: nn.Module,
        view: nn.Module,
        held_out: Callable[[], Iterable[Batch]],
        *,
        temperature: float = 0.5,
    ) -> None:
        if temperature <= 0:
            raise RecipeError(f"temperature is {temperature:g}, expected more than 0.")
        self.model = model
        self._view = view
        self._held_out = held_out
        self._temperature = temperature

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """The contrastive loss of two views of each picture, in nats."""
        view = self._view.to(batch["image"].device)
        first, second = view(batch["image"]), view(batch["image"])
        projected = self.model(torch.cat([first, second])).float()
        return {"contrast": nt_xent(*projected.chunk(2), temperature=self._temperature)}

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Share of held-out pictures, in [0, 1], whose one view is nearest to their other within a batch.

        Raises:
            SampleError: There are no held-out samples.
        """
        device = next(model.parameters()).device
        view = self._view.to(device)
        right = seen = 0
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            for batch in self._held_out():
                image = batch["image"].to(device)
                similar = model(view(image)).float() @ model(view(image)).float().T
                right += int((similar.argmax(1) == torch.arange(len(image), device=device)).sum())
                seen += len(image)
        if not seen:
            raise SampleError("There are no held-out samples to evaluate on.")
        return {"recognised": right / seen}


def nt_xent(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], *, temperature: float
) -> Float[Tensor, ""]:
    """The normalised, temperature-scaled cross-entropy of pairs of unit vectors (arXiv 2002.05709, eq. 1)."""
    both = torch.cat([first, second])
    logits = both @ both.T / temperature
    logits.fill_diagonal_(float("-inf"))
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return nn.functional.cross_entropy(logits, partners)


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(x), device=x.device).uniform_(low, high)
