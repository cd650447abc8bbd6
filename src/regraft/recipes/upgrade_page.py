"""The plan of an upgrade as a page."""

from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from regraft.recipes.forecast import shown_points
from regraft.recipes.pages import write_page
from regraft.recipes.upgrade_chart import curve_chart

if TYPE_CHECKING:
    from regraft.recipes.upgrade_plan import UpgradePlan


def write_plan_page(path: Path, plan: "UpgradePlan", gallery: str) -> None:
    """Write one HTML file that needs nothing beside it.

    Args:
        path: Where.
        plan: What was found.
        gallery: The gallery's name.
    """
    context = {
        "plan": plan,
        "gallery": gallery,
        "points": shown_points(plan.forecast.points),
        "stop": plan.forecast.at(plan.forecast.stop),
        "chart": Markup(curve_chart(plan.forecast)),
    }
    write_page(path, "plan.html.j2", context)
