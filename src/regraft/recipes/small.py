"""Recipes for pictures of 28 to 64 pixels that run on a laptop."""

from regraft.recipes.recipe import Augmentation, Recipe
from regraft.train.schedule import Schedule


def mobileone_mini() -> Recipe:
    """A small MobileOne for 32-pixel pictures.

    Command: `regraft train PICTURES --recipe mobileone_mini --out RUN`. Hardware: any CPU. This is what
    `regraft demo` trains; its report holds the time and the accuracy of your own run.
    """
    return Recipe(
        model="mobileone_mini",
        schedule=Schedule(
            steps=600,
            peak_lr=0.1,
            warmup_steps=30,
            weight_decay=5e-4,
            final_weight_decay=5e-5,
            evaluate_every=100,
            checkpoint_every=50,
        ),
        size_px=32,
        crop=1.0,
        batch_size=64,
        optimizer="sgd",
        label_smoothing=0.1,
        average_decay=0.99,
        augment=Augmentation(pad_px=4),
    )


def fastvit_mini() -> Recipe:
    """A small FastViT for 32-pixel pictures: slower than the MobileOne, and better.

    Command: `regraft train PICTURES --recipe fastvit_mini --out RUN`. Hardware: any CPU, better a GPU.
    """
    return Recipe(
        model="fastvit_mini",
        schedule=Schedule(
            steps=3000,
            peak_lr=2e-3,
            final_lr=1e-5,
            warmup_steps=150,
            warmup_lr=1e-6,
            weight_decay=0.05,
            evaluate_every=500,
            checkpoint_every=250,
        ),
        size_px=32,
        crop=1.0,
        interpolation="bicubic",
        batch_size=128,
        optimizer="adamw",
        label_smoothing=0.1,
        average_decay=0.999,
        augment=Augmentation(pad_px=4, flip=True),
    )
