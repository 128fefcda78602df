"""What `deploy/kubernetes/` says holds together, and with compose.yaml: no cluster is needed."""

import re
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from embed_assets.resources.pages import DAGSTER_VARIABLE, MLFLOW_VARIABLE
from embed_assets.settings import PREFIX, Settings
from embed_assets_tests.test_deploy import DEPLOY, REPOSITORY, compose, read

HERE = DEPLOY / "kubernetes"
CHARTS = ("postgres", "mlflow", "ray")
SECRET = re.compile("PASSWORD|SECRET|TOKEN|_KEY")

pytestmark = pytest.mark.skipif(not HERE.is_dir(), reason="the package alone is installed")


def load(name: str) -> Any:
    return yaml.safe_load(read(HERE / name))


def values(chart: str) -> dict[str, Any]:
    return load(f"values/{chart}.yaml")


def manifests() -> dict[str, dict[str, Any]]:
    return {m["kind"]: m for m in yaml.safe_load_all(read(HERE / "embed-assets.yaml"))}


def pod() -> dict[str, Any]:
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def containers() -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in [*pod()["initContainers"], *pod()["containers"]]}


def variables(file: str) -> dict[str, str]:
    return {k: v or "" for k, v in dotenv_values(HERE / file).items()}


def named(found: Any, key: str) -> list[Any]:
    """What stands under this key, however deep."""
    if isinstance(found, dict):
        here = [found[key]] if key in found else []
        return [*here, *(n for value in found.values() for n in named(value, key))]
    return [n for value in found for n in named(value, key)] if isinstance(found, list) else []


def test_what_kubectl_puts_together_is_there():
    put = load("kustomization.yaml")
    files = [*put["resources"], *(e for made in put["configMapGenerator"] for e in made["envs"])]
    assert all((HERE / file).is_file() for file in files)
    assert {c["image"] for c in containers().values()} == {image["name"] for image in put["images"]}


def test_all_have_one_image_of_this_version():
    [image] = load("kustomization.yaml")["images"]
    ours = {"repository": image["newName"], "tag": image["newTag"]}
    mlflow = values("mlflow")
    migration = mlflow["initImages"]["mlflowDbMigration"]
    assert mlflow["image"] == migration == values("ray")["image"] == ours
    version = re.search('^version = "(.*)"', read(REPOSITORY / "pyproject.toml"), re.MULTILINE)
    assert version
    assert image["newTag"] == version[1]


def test_the_settings_are_taken(monkeypatch: pytest.MonkeyPatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    said = variables("settings.env")
    ours = {k for k in said if k.startswith(PREFIX)} - {DAGSTER_VARIABLE, MLFLOW_VARIABLE}
    for name in ours:
        monkeypatch.setenv(name, said[name])
    taken = Settings(_env_file=None)  # type: ignore
    assert {PREFIX + name.upper() for name in taken.model_fields_set} == ours
    assert str(taken.dagster_home) == said["DAGSTER_HOME"]


def test_processes_get_the_variables_that_they_get_from_compose():
    services = compose()["services"]
    example = re.findall(r"^#? ?(\w+)=", read(HERE / "bucket.env.example"), re.MULTILINE)
    given = {*variables("settings.env"), *example, "RAY_AUTH_TOKEN", "PGPASSWORD"}
    optional = {f"{PREFIX}UI_HOSTS", "BUCKETS"}
    assert given | optional == {*services["prepare"]["environment"]}
    for container in containers().values():
        sources = named(container["envFrom"], "name")
        assert (sources, named(container["env"], "key")) == (
            ["settings", "bucket", "ray"],
            ["password"],
        )


def test_no_secret_is_written_down():
    assert not any(SECRET.search(name) for name in variables("settings.env"))
    kept = variables("bucket.env.example")
    assert not any(value for name, value in kept.items() if SECRET.search(name))
    every = named([pod(), *map(values, CHARTS)], "env") + named(values("ray"), "containerEnv")
    secret = [v for variables in every for v in variables if SECRET.search(v["name"])]
    assert secret
    assert all("value" not in variable for variable in secret)


def test_a_secret_that_is_named_is_made_by_the_page_or_by_the_chart_of_postgres():
    page = read(HERE / "README.md")
    made = {*re.findall(r"create secret generic (\w+)", page), "postgres-app"}
    asked = named(pod(), "secretKeyRef") + named(pod(), "secretRef")
    asked += named(values("ray"), "secretKeyRef")
    asked += named(values("mlflow"), "existingDatabaseSecret")
    names = {one["name"] for one in asked} | {*values("mlflow")["extraSecretNamesForEnvFrom"]}
    assert names == made


def test_a_volume_that_is_mounted_is_there():
    volumes = {volume["name"] for volume in pod()["volumes"]}
    assert {m["name"] for c in containers().values() for m in c["volumeMounts"]} == volumes
    claim = manifests()["PersistentVolumeClaim"]
    for of in (pod(), values("ray")["worker"]):
        assert named(of["volumes"], "claimName") == [claim["metadata"]["name"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"], "Ray's nodes read models in it"


def test_rays_nodes_find_models_where_the_daemon_does():
    said = variables("settings.env")
    home, hub = said[f"{PREFIX}HOME"], said["HF_HOME"]
    for container in (containers()["daemon"], values("ray")["worker"]):
        assert {"name": "home", "mountPath": home} in container["volumeMounts"]
    assert {"name": "HF_HOME", "value": hub} in values("ray")["common"]["containerEnv"]
    services = compose()["services"]
    assert f"home:{home}" in services["ray-worker"]["volumes"]
    daemon, worker = (services[name]["environment"] for name in ("dagster-daemon", "ray-worker"))
    assert (worker["HF_HOME"], daemon[f"{PREFIX}HOME"]) == (daemon["HF_HOME"], home)


def test_each_is_found_under_the_name_that_its_chart_gives_it():
    said = variables("settings.env")
    postgres, mlflow, ray = map(values, CHARTS)
    host = f"{postgres['fullnameOverride']}-rw"
    owner, lake = (postgres["cluster"]["initdb"][key] for key in ("owner", "database"))
    others = {database["name"] for database in postgres["databases"]}
    assert f":host={host} dbname={lake} user={owner}?" in said[f"{PREFIX}WAREHOUSE"]
    assert said[f"{PREFIX}DAGSTER_STORAGE"].endswith(f"//{owner}@{host}/dagster")
    store = mlflow["backendStore"]["postgres"]
    assert (store["host"], others) == (host, {"dagster", store["database"]})
    assert {database["owner"] for database in postgres["databases"]} == {owner}
    address = f"{mlflow['fullnameOverride']}:{mlflow['service']['port']}"
    assert said["MLFLOW_TRACKING_URI"] == f"http://{address}"
    assert said["RAY_ADDRESS"] == f"{ray['fullnameOverride']}-head-svc:6379"


def test_pages_are_where_a_forwarded_port_leads():
    said = variables("settings.env")
    pages = containers()["pages"]
    port = pages["command"][pages["command"].index("--port") + 1]
    assert said[DAGSTER_VARIABLE] == f"http://localhost:{port}"
    assert f"127.0.0.1:{port}/" in str(pages["readinessProbe"])
    assert f"port-forward deployment/embed-assets {port} " in read(HERE / "README.md")
    assert "--host" not in pages["command"], "who reaches them may do everything"
    mlflow = values("mlflow")
    served = {said["MLFLOW_TRACKING_URI"], said[MLFLOW_VARIABLE]}
    assert {f"http://{host}" for host in mlflow["serverAllowedHosts"]} == served
    policy = manifests()["NetworkPolicy"]["spec"]
    assert named(policy["ingress"], "port") == [mlflow["service"]["port"]]
    [rule] = policy["ingress"]
    admitted = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    pods = manifests()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert admitted[0].items() <= pods.items()
    assert admitted[1:] == [{"ray.io/is-ray-node": "yes"}], "KubeRay's label: trainings are there"


def test_ray_is_of_the_version_that_is_installed():
    pinned = re.search("^ray==(.*)$", read(REPOSITORY / "constraints.txt"), re.MULTILINE)
    assert pinned
    assert values("ray")["head"]["rayVersion"] == pinned[1]


@pytest.mark.parametrize("chart", CHARTS)
def test_values_are_for_the_version_of_the_chart_that_the_page_installs(chart):
    page = read(HERE / "README.md")
    named = re.match(
        r"# Values for the chart (\S+) ([\d.]+\d)", read(HERE / f"values/{chart}.yaml")
    )
    assert named
    install = f"helm install {chart} {named[1]} --version {named[2]} --values values/{chart}.yaml"
    assert install in page
    assert f"`{named[1]}` {named[2]}" in page
