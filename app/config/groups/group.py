"""The base class of all groups of settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class SettingsGroup(BaseModel):
    """Settings that belong together.

    A field's alias is its name in the environment, in lower case. A field without an alias has the same name
    there.
    """

    # The validator of `Settings` includes that of each group; building it separately would only take time.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, defer_build=True)

    @classmethod
    def fields_by_setting(cls) -> dict[str, FieldInfo]:
        """Return the fields by their names in the environment, in lower case."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}
