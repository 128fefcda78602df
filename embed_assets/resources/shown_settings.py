"""The settings as a resource of Dagster: its page shows where everything lies and what is set."""

from typing import Any, ClassVar

import dagster as dg
from dagster._config.pythonic_config import ConfigurableResourceFactory  # Dagster doesn't export it
from pydantic import create_model

from embed_assets.errors import SettingsError, hide_password
from embed_assets.settings import PREFIX, Settings


class SettingsOfTheEnvironment(ConfigurableResourceFactory[Settings]):
    """The PDF folder, the folder of all state, and every setting that is not as it is by default.

    They are set in the environment or in `.env`, before Dagster is started, and hold for all runs;
    docs/settings.md lists them.
    """

    given: ClassVar[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> Settings:
        """The settings. SettingsError where a run was launched with others: it has none."""
        shown = shown_settings(self.given)
        for name, value in shown.items():
            if getattr(self, name) != value:
                raise SettingsError(
                    "set it in the environment and start again; a run has no settings of its own. "
                    "Those of the training stand in the Launchpad under finetuned_model.",
                    f"{PREFIX}{name.upper()}",
                )
        return self.given


def settings_resource(settings: Settings) -> SettingsOfTheEnvironment:
    """The resource of these settings. No password is shown."""
    shown = shown_settings(settings)
    fields: dict[str, Any] = dict.fromkeys(shown, (str, ...))
    kind = create_model(
        SettingsOfTheEnvironment.__name__,
        __base__=SettingsOfTheEnvironment,
        __module__=__name__,
        __doc__=SettingsOfTheEnvironment.__doc__,
        **fields,
    )
    kind.given = settings
    return kind(**shown)


def shown_settings(settings: Settings) -> dict[str, str]:
    """Values of the settings that a page shows, by name: where everything lies comes first."""
    names = [
        name
        for name, field in Settings.model_fields.items()
        if name in ("pdfs", "home") or getattr(settings, name) != field.default
    ]
    values = {name: str(getattr(settings, name)) for name in names}
    return {name: hide_password(value, value) for name, value in values.items()}
