"""MLflow: one run per materialization, started and ended here; which models are this home's.

dagster-mlflow shares one run among all assets of a Dagster run and leaves it RUNNING; here each
materialization has its own, which ends with it: FAILED where it failed, KILLED where it was
interrupted.
"""

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import dagster as dg
from filelock import FileLock
from pydantic import PrivateAttr

from embed_assets.errors import BusyError, ProjectError, one_line
from embed_assets.resources import headline
from embed_assets.resources.pages import MLFLOW_VARIABLE, asset_page, run_page
from embed_assets.resources.patience import answering_at_once
from embed_assets.resources.waiting import Wait
from embed_assets.resources.warehouse import Warehouse
from embed_assets.secrets import hide_secrets
from embed_assets.settings import DEFAULT_PROJECT, TRACKING_URI
from embed_assets.storage import disk_of, is_locked, is_writable, locked_by, trouble_with

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION = "champion"
CHALLENGER = "challenger"
"""Alias of the newest version that was judged."""
PREVIOUS = "previous"
"""Alias of the version that a rollback returns to."""
REPLACED = "replaced_champion"
"""Tag of a model version: which version was champion before it."""
MADE_CHAMPION = "made_champion"
"""Tag of a model version that is or was champion: when it was made so, by whom, and why."""
WITHDRAWN = "withdrawn"
"""Tag of a model version that may not become champion by itself again: when, by whom, and why."""
TRAINED_IN = "trained_in"
"""Tag of a model version: the MLflow run that trained it."""
DESCRIBED = "embed_assets/description"
"""Tag of a model version and of a registered model: digests of the descriptions written here last,
which tell them from one that a person wrote.
"""
HOME = "embed_assets/home"
"""Tag of an experiment and of a registered model: the id of the home that they belong to."""
DAGSTER_RUN = "dagster/run_id"
"""Tag of an MLflow run: the Dagster run that it belongs to."""
DAGSTER_ASSET = "dagster/asset_key"
"""Tag of an MLflow run: the asset that it made."""
NOTE = "mlflow.note.content"
"""Tag of a run and of an experiment: the description that MLflow shows, as markdown."""
SOURCE = "mlflow.source.name"
"""Tag of a run and of a logged model: the program. MLflow would note a path of this machine."""
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    headline.VIEW_TAG: headline.runs_view(),
    NOTE: headline.ABOUT,
}
"""Tags of an experiment: what it is for, which MLflow's UI would guess or ask, and how it is shown.
"""
IN_TRAINING_MODE = "workflowType=machine_learning"
"""Part of an address: MLflow opens on other pages without it."""
ADDRESSES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Where MLflow's database holds addresses of artifacts: columns by table."""
PATIENCE = 60.0
"""Seconds to wait for other programs that write to MLflow's database."""
HOME_ID = "home-id"
"""File of a home: its id, made once. A copy of the home is the same project."""
DEFAULT_UI = "http://127.0.0.1:5000"


class Tracking(dg.ConfigurableResource):
    """Where runs, models and reports are tracked.

    The address of the server may hold a password: it is no field, which Dagster would store and
    show, but is read from the environment when it is needed.
    """

    home: str
    project: str = DEFAULT_PROJECT
    _name: str | None = PrivateAttr(None)

    @property
    def uri(self) -> str:
        """MLflow server: MLFLOW_TRACKING_URI, else SQLite in the home folder. Show it to nobody.

        That of a database may hold a password; a server's stands in variables of its own.
        """
        set_password_apart()
        return os.environ.get(TRACKING_URI) or f"sqlite:///{self._database}"

    @property
    def _database(self) -> Path:
        return Path(self.home, "mlflow.db")

    @property
    def database(self) -> Path | None:
        """The SQLite file that everything is tracked in, if it is one."""
        _, is_sqlite, path = self.uri.partition("sqlite:///")
        return Path(path) if is_sqlite else None

    @property
    def artifacts(self) -> Path:
        """Where artifacts are kept, unless an MLflow server keeps them."""
        return Path(self.home, "mlartifacts")

    @property
    def _is_in_home(self) -> bool:
        return self.uri == f"sqlite:///{self._database}"

    @property
    def home_id(self) -> str:
        """The mark of what belongs to this home; made where it has none."""
        return _make_id(self.home)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever tracked: MLflow's database would have to be made first."""
        if not self._is_in_home:
            return False
        return not self._database.exists() or self._is_begun

    @property
    def _is_begun(self) -> bool:
        """Whether the database is an empty file: SQLite makes one before it writes."""
        return self._database.is_file() and self._database.stat().st_size == 0

    def make_database(self) -> None:
        """Make MLflow's database, if it is the home's and isn't there yet: whole, and once.

        MLflow takes seconds for it. One that a kill or another process came into meanwhile would be
        broken for ever. One that came here with a moved or copied home is told where it is now.
        """
        if not self.is_empty:
            if self._is_in_home and is_writable(Path(self.home)):
                self._await_unlocked()
                with self.explained():
                    self._correct_addresses()
            return
        with self.explained("MLflow's database can't be made"):
            self._make_database()

    def _make_database(self) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self._database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._database}.lock"):
            if not self.is_empty:  # another process has just made it
                return
            unfinished = self._database.with_name("mlflow.db.unfinished")
            for left in unfinished.parent.glob(f"{unfinished.name}*"):  # by a kill
                left.unlink()
            SqlAlchemyStore(f"sqlite:///{unfinished}", self.artifacts.as_uri()).engine.dispose()
            unfinished.replace(self._database)

    def _correct_addresses(self) -> None:
        """Have MLflow keep artifacts in the home where it is now, and find them there.

        MLflow keeps absolute addresses: a copy's runs would write into the home that it was copied
        from. What was left there is found there.
        """
        here = self.artifacts.as_uri()
        with closing(sqlite3.connect(self._database, timeout=PATIENCE)) as connection, connection:
            [before] = connection.execute(
                "SELECT artifact_location FROM experiments WHERE artifact_location LIKE ? "
                "ORDER BY experiment_id LIMIT 1",
                [f"file:%/{self.artifacts.name}"],
            ).fetchone() or [here]
            if before == here or _is_same_folder(before, here):
                return
            for table, column in ADDRESSES.items():
                known = connection.execute(
                    f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'"
                )
                for (address,) in known.fetchall():
                    rest = address.removeprefix(before)
                    is_below = rest != address and rest[:1] in ("", "/")
                    now = f"{here}{rest}"
                    is_left = _folder(address).exists() and not _folder(now).exists()
                    if is_below and (table == "experiments" or not is_left):
                        connection.execute(
                            f"UPDATE {table} SET {column} = ? WHERE {column} = ?", [now, address]
                        )

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, name: str) -> Iterator[str]:
        """An MLflow run for this materialization; gives its id. Ended when the block ends."""
        import mlflow
        from mlflow.exceptions import MlflowException

        called = self.connect()
        if called != self.project:
            context.log.info(
                f"'{self.project}' in MLflow belongs to another home: this one's experiment and "
                f"registered model are '{called}'. EMBED_ASSETS_PROJECT gives them another name."
            )
        asset = context.asset_key.to_user_string()
        tags = {
            DAGSTER_RUN: context.run.run_id,
            DAGSTER_ASSET: asset,
            SOURCE: f"embed-assets {asset}",
            NOTE: _made_by(context.run.run_id, asset),
        }
        run_id = mlflow.start_run(run_name=name, tags=tags).info.run_id
        try:
            context.log.info(f"MLflow run {run_id}: {self.run_url(run_id)}")
            mlflow.set_tag("dagster/data_version", run_id)
            yield run_id
        except MlflowException as error:
            _end_in_vain("FAILED")
            raise ProjectError(self._said(error), "MLflow") from None
        except Exception:
            _end_in_vain("FAILED")
            raise
        except BaseException:  # Ctrl-C, a signal, Dagster's interruption
            _end_in_vain("KILLED")
            raise
        mlflow.end_run()

    def end_dead_runs(self, is_at_work: Callable[[str], bool]) -> list[str]:
        """End, as KILLED, the MLflow runs that are RUNNING for nobody; gives their ids.

        is_at_work: whether the Dagster run of an id is at work, or waits for it.
        """
        if self.is_empty:
            return []
        client = self.client()
        with self.explained("MLflow can't say which runs are at work"):
            experiment = client.get_experiment_by_name(self.name)
            if experiment is None:
                return []
            known = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
            dead = [
                run.info.run_id
                for run in known
                if (dagster_run := run.data.tags.get(DAGSTER_RUN)) and not is_at_work(dagster_run)
            ]
            for run_id in dead:
                client.set_terminated(run_id, "KILLED")
        return dead

    @property
    def name(self) -> str:
        """What this home's experiment and registered model are called. Changes nothing.

        The project's name, unless another home on the same server has it: marks say whose it is,
        and older homes, which left none, know the model's versions. ProjectError if MLflow can't
        say. It is asked until a mark has decided.
        """
        if self._is_in_home:
            return self.project
        if self._name is not None:
            return self._name
        mark, experiment = _read_id(self.home), self._experiment(self.project)
        model = self._registered(self.project)
        marks = {found.tags.get(HOME) for found in (experiment, model) if found}
        ours = self._knows_version_of(model) if marks == {None} else marks <= {None, mark}
        name = self.project if ours else f"{self.project}-{mark[:8]}"
        if mark and marks - {None}:
            self._name = name
        return name

    def connect(self) -> str:
        """Point mlflow at this server and this home's experiment; gives the name of both.

        What is missing is made, and marked with the home's id.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        self.make_database()
        client, mark = self.client(), _make_id(self.home)
        name = self.name
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = self.artifacts.as_uri() if self.uri.startswith("sqlite:") else None
            tags = {**EXPERIMENT_TAGS, HOME: mark}
            try:
                mlflow.create_experiment(name, artifact_location=location, tags=tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self.connect()  # another home was quicker
        else:
            for key, value in {**EXPERIMENT_TAGS, HOME: mark}.items():
                if key not in experiment.tags:  # of a person, or of ours
                    client.set_experiment_tag(experiment.experiment_id, key, value)
        model = self._registered(name)
        if model is not None and HOME not in model.tags:
            client.set_registered_model_tag(name, HOME, mark)
        mlflow.set_experiment(name)
        return name

    def client(self) -> "MlflowClient":
        """A client of this server."""
        import mlflow

        self._await_unlocked()
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        # What `--json` prints is one object: where a run is, Dagster's log says.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        uri, before = self.uri, os.environ.get(TRACKING_URI)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # mlflow sets the variable: a home that is used next would take it for a person's choice.
        if before is None:
            os.environ.pop(TRACKING_URI, None)
        else:
            os.environ[TRACKING_URI] = before
        return mlflow.MlflowClient()

    def _await_unlocked(self) -> None:
        """Wait while another program keeps the database from being read. Says for whom."""
        file = self.database
        if file is None or not file.is_file():
            return
        wait = Wait(str(file), PATIENCE)
        while is_locked(file):
            if not wait.goes_on(str(file)):
                raise BusyError(locked_by(file))

    def aliases(self) -> dict[str, str]:
        """Versions of the home's registered model by alias. ProjectError if MLflow can't say.

        From the home's own database they are read without MLflow, whose import takes seconds.
        """
        if self.is_empty:
            return {}
        if self._is_in_home:
            # What can't be read, or stands elsewhere in another MLflow, MLflow itself says.
            with suppress(sqlite3.Error):
                return self._aliases_in_home()
        model = self.registered_model()
        return {name: str(version) for name, version in model.aliases.items()} if model else {}

    def _aliases_in_home(self) -> dict[str, str]:
        address = f"{self._database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=1)) as connection:
            rows = connection.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name = ?", [self.project]
            )
            return {alias: str(version) for alias, version in rows}

    def registered_model(self) -> "RegisteredModel | None":
        """The home's registered model, if it has any. ProjectError if MLflow can't say."""
        return None if self.is_empty else self._registered(self.name)

    def _knows_version_of(self, model: "RegisteredModel | None") -> bool:
        if model is None:
            return False
        trained = Warehouse(path=str(Path(self.home, "warehouse.duckdb"))).read(
            "SELECT version, mlflow_run_id FROM models"
        )
        registered = {
            (str(version.version), version.tags.get(TRAINED_IN))
            for version in self.client().search_model_versions(f"name = '{model.name}'")
        }
        return any(
            (version, run) in registered or (version, None) in registered
            for version, run in trained.iter_rows()
        )

    def _experiment(self, name: str) -> "Experiment | None":
        with self.explained():
            return self.client().get_experiment_by_name(name)

    def _registered(self, name: str) -> "RegisteredModel | None":
        from mlflow.exceptions import MlflowException

        with self.explained():
            try:
                return self.client().get_registered_model(name)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # nothing was registered yet
                    return None
                raise

    @contextmanager
    def explained(
        self, trouble: str = "MLflow can't say which models are this home's"
    ) -> Iterator[None]:
        """Tell a person in one line that MLflow can't be asked, without the server's password."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
            raise ProjectError(f"{trouble}: {self._said(error)}") from None

    def _said(self, error: Exception) -> str:
        """An error of MLflow in one line, without the password that the server's address may hold.

        MLflow tells a server that doesn't answer by what its client raised. Of its database the
        disk and the file are looked at.
        """
        if self.database and (said := trouble_with(disk_of(self.database.parent), error)):
            return said
        from requests.exceptions import ConnectionError, ProxyError, RetryError, SSLError

        cause = error.__context__
        server = hide_secrets(without_password(self.uri))
        if isinstance(cause, RetryError):
            tries = cause.args[0]
            why = one_line(hide_secrets(str(getattr(tries, "reason", tries))))
            return f"the server {server} can't answer: {why}. Its log says more."
        if not isinstance(cause, ConnectionError) or isinstance(cause, ProxyError | SSLError):
            return one_line(hide_secrets(str(error)))
        return (
            f"the server {server} doesn't answer. Start it, or set {TRACKING_URI} to another one."
        )

    def check_answers(self) -> None:
        """ProjectError at once where the server doesn't answer: MLflow's client tries for minutes.

        Ask before something is changed, and change it with the client's own patience: a server that
        was given up on may have done what it was asked.
        """
        if self._is_in_home:
            return
        with answering_at_once():
            self._experiment(self.project)

    def run_url(self, run_id: str, artifact: str = "") -> str:
        """Page of a run, or of an artifact of it; a report opens in it.

        With SQLite it is served by `embed-assets ui`.
        """
        return f"{self._pages}/{self.run_link(run_id, artifact)}"

    def run_link(self, run_id: str, artifact: str = "") -> str:
        """Page of a run, or of an artifact of it, as MLflow's own pages link to it."""
        place = f"/artifacts/{artifact}" if artifact else ""
        return f"#/experiments/{self._key}/runs/{run_id}{place}?{IN_TRAINING_MODE}"

    @property
    def runs_link(self) -> str:
        """Page of all runs with their headline figures, as MLflow's own pages link to it."""
        view = f"viewStateShareKey={headline.VIEW}"
        return f"#/experiments/{self._key}/runs?{IN_TRAINING_MODE}&{view}"

    def version_link(self, version: str) -> str:
        """Page of a version of the registered model, as MLflow's own pages link to it."""
        name = quote(self.name, safe="")
        return f"#/models/{name}/versions/{version}?{IN_TRAINING_MODE}"

    @property
    def _pages(self) -> str:
        """Where MLflow's pages are served."""
        if self.uri.startswith("http"):
            return without_password(self.uri).rstrip("/")
        return os.environ.get(MLFLOW_VARIABLE, DEFAULT_UI).rstrip("/")

    @property
    def _key(self) -> str:
        """Id of the experiment; that of MLflow's own where there is none yet."""
        experiment = self._experiment(self.name)
        return experiment.experiment_id if experiment else "0"

    def describe_run(self, run_id: str, text: str) -> None:
        """Write the description of a run: a text in markdown, and what made the run."""
        client = self.client()
        tags = client.get_run(run_id).data.tags
        if {DAGSTER_RUN, DAGSTER_ASSET} <= tags.keys():
            text += f"\n\n{_made_by(tags[DAGSTER_RUN], tags[DAGSTER_ASSET])}"
        client.set_tag(run_id, NOTE, text)

    def metadata(self, run_id: str) -> dict[str, dg.MetadataValue]:
        """Metadata that links a Dagster materialization to its MLflow run."""
        return {
            # As markdown: the bare address is so long that the UI cuts off everything beside it.
            "mlflow_run": dg.MetadataValue.md(f"[{run_id[:8]}]({self.run_url(run_id)})"),
            "mlflow_run_id": dg.MetadataValue.text(run_id),
        }


def _folder(address: str) -> Path:
    """The folder at a `file:` address."""
    return Path(unquote(urlsplit(address).path))


def _is_same_folder(one: str, other: str) -> bool:
    """Whether two `file:` addresses lead to one folder, which is there."""
    with suppress(OSError):
        return _folder(one).samefile(_folder(other))
    return False


def _end_in_vain(status: str) -> None:
    """End the run that is open, which failed. Where MLflow is down, the next plan ends it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        mlflow.end_run(status)


MODELS = "models"
"""What waits where MLflow doesn't answer: which version has which alias is unknown."""


def _made_by(run_id: str, asset: str) -> str:
    """Links from an MLflow run to the Dagster run and the asset, in markdown."""
    return (
        f"Made by the [Dagster run {run_id[:8]}]({run_page(run_id)}) "
        f"of the asset [{asset}]({asset_page(asset)})."
    )


def _read_id(home: str) -> str:
    """The home's id; empty of a home that has none yet."""
    file = Path(home, HOME_ID)
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _make_id(home: str) -> str:
    """The home's id, made if it has none."""
    Path(home).mkdir(parents=True, exist_ok=True)
    file = Path(home, HOME_ID)
    with FileLock(f"{file}.lock"):
        if not _read_id(home):
            unfinished = file.with_name(f"{HOME_ID}.unfinished")
            unfinished.write_text(uuid.uuid4().hex, encoding="utf-8")
            unfinished.replace(file)
    return _read_id(home)


def set_password_apart() -> None:
    """Move the name and the password in MLFLOW_TRACKING_URI to the variables that MLflow has.

    MLflow prints the address of each run, which compute logs keep.
    """
    parts = urlsplit(os.environ.get(TRACKING_URI, ""))
    if parts.scheme in ("http", "https") and parts.username and parts.password:
        os.environ[TRACKING_URI] = without_password(parts.geturl())
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)


def without_password(address: str) -> str:
    """The address of a server without the name and password in it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
