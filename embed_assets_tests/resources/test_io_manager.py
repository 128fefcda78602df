"""A run replaces the slices of its documents, and the ledger knows it with them."""

from collections.abc import Callable, Sequence

import dagster as dg
import polars as pl
import pytest

from embed_assets.partitions import BATCHES, DOCUMENTS, documents
from embed_assets.resources.io_manager import DocumentsIOManager, Slices
from embed_assets.resources.ledger import Cause, Failure, Records, read_records
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES, TableMismatchError
from embed_assets_tests.rows import chunk, pages, raw_pdf

KILLED = Failure(Cause.PROCESS_ENDED, "its process ended with exit code -9")


class House:
    """Two assets, partitioned by document, whose rows a test decides; and where they land."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.instance = dg.DagsterInstance.ephemeral()
        self.read: pl.DataFrame | None = None

    def run(
        self,
        rows: pl.DataFrame | Slices,
        keys: Sequence[str],
        made_of_them: Callable[[pl.DataFrame], pl.DataFrame | Slices] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize parsed_markdown from these rows, and chunks from what is read back."""
        self.instance.add_dynamic_partitions(DOCUMENTS, list(keys))

        @_asset("parsed_markdown")
        def parsed_markdown() -> Slices:
            return Slices(rows) if isinstance(rows, pl.DataFrame) else rows

        @_asset("chunks")
        def chunks(parsed_markdown: pl.DataFrame) -> Slices:
            self.read = parsed_markdown
            assert made_of_them is not None
            made = made_of_them(parsed_markdown)
            return Slices(made) if isinstance(made, pl.DataFrame) else made

        io_manager = DocumentsIOManager(database=self.warehouse.path, warehouse=self.warehouse)
        return dg.materialize(
            [parsed_markdown, chunks],
            selection=[parsed_markdown] if made_of_them is None else [parsed_markdown, chunks],
            instance=self.instance,
            resources={"io_manager": io_manager, "warehouse": self.warehouse},
            tags={
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def _asset(name: str) -> Callable[[Callable[..., Slices]], dg.AssetsDefinition]:
    return dg.asset(
        name=name,
        partitions_def=documents,
        backfill_policy=BATCHES,
        code_version="7",
        metadata={"partition_expr": "document_id"},
    )


def test_bytes_of_pdfs_pass_by_a_lakes_tables(lake):
    """What is made of them is handed them all the same."""
    read: list[pl.DataFrame] = []
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(DOCUMENTS, ["a"])

    @_asset("raw_pdfs")
    def raw_pdfs() -> Slices:
        return Slices(raw_pdf("a", b"%PDF one"))

    @_asset("parsed_markdown")
    def parsed_markdown(raw_pdfs: pl.DataFrame) -> Slices:
        read.append(raw_pdfs)
        return Slices(pages("a", "one"))

    io_manager = DocumentsIOManager(database=lake.path, warehouse=lake)
    dg.materialize(
        [raw_pdfs, parsed_markdown],
        instance=instance,
        partition_key="a",
        resources={"io_manager": io_manager, "warehouse": lake},
    )
    assert read[0]["content"].to_list() == [b"%PDF one"]
    assert lake.read("SELECT content FROM raw_pdfs")["content"].to_list() == [None]
    assert lake.contents.all().keys() == {"00"}


@pytest.fixture
def house(tmp_path) -> House:
    return House(Warehouse(path=str(tmp_path / "warehouse.duckdb")))


def texts(house: House) -> list[tuple[str, int, str]]:
    """Everything that parsed_markdown holds."""
    sql = "SELECT document_id, page, markdown FROM parsed_markdown ORDER BY ALL"
    return house.warehouse.read(sql).rows()


def records(house: House) -> Records:
    return read_records(house.warehouse)


def versions(house: House, asset: str) -> dict[str, str]:
    """Data versions by document."""
    made = records(house).made
    return {key: row.data_version for (name, key), row in made.items() if name == asset}


def test_a_rerun_does_not_duplicate(house):
    for _ in range(2):
        assert house.run(pages("a", "one", "two"), ["a"]).success
    assert texts(house) == [("a", 1, "one"), ("a", 2, "two")]


def test_a_partitions_slice_alone_is_replaced(house):
    house.run(pages("a", "one", "two"), ["a"])
    house.run(pages("b", "uno"), ["b"])
    house.run(pages("a", "ONE"), ["a"])
    assert texts(house) == [("a", 1, "ONE"), ("b", 1, "uno")]


def test_a_run_over_a_range_materializes_each_of_its_partitions(house):
    result = house.run(pl.concat([pages("a", "one"), pages("b", "uno", "dos")]), ["a", "b"])
    assert texts(house) == [("a", 1, "one"), ("b", 1, "uno"), ("b", 2, "dos")]
    assert set(versions(house, "parsed_markdown")) == {"a", "b"}
    made = house.instance.get_materialized_partitions(dg.AssetKey("parsed_markdown"))
    assert made == {"a", "b"}
    counts = {
        event.partition: event.step_materialization_data.materialization.metadata[
            "dagster/partition_row_count"
        ].value
        for event in result.get_asset_materialization_events()
    }
    assert counts == {"a": 1, "b": 2}


def test_a_document_of_the_run_without_rows_is_materialized_and_empty(house):
    house.run(pl.concat([pages("a", "one"), pages("b", "uno")]), ["a", "b"])
    house.run(pages("a", "one"), ["a", "b"])
    assert texts(house) == [("a", 1, "one")]
    assert set(versions(house, "parsed_markdown")) == {"a", "b"}


def test_an_empty_frame_is_stored_and_read(house):
    result = house.run(pages("a"), ["a"], lambda rows: TABLES["chunks"].empty())
    assert result.success
    assert house.read is not None
    assert house.read.equals(TABLES["parsed_markdown"].empty())
    assert house.warehouse.count("chunks") == 0
    assert versions(house, "chunks") == {"a": ""}  # made, and holds nothing


def test_a_downstream_asset_reads_the_documents_of_its_run_alone_in_the_order_of_the_key(house):
    house.run(pages("z", "other"), ["z"])
    rows = pl.concat([pages("b", "uno", "dos").reverse(), pages("a", "one")])
    house.run(rows, ["a", "b"], lambda rows: pl.concat([chunk("a", "one"), chunk("b", "uno")]))
    assert house.read is not None
    assert house.read["markdown"].to_list() == ["one", "uno", "dos"]
    assert house.read.schema == TABLES["parsed_markdown"].schema


def test_a_slice_remembers_the_version_of_what_it_was_made_from_and_of_its_code(house):
    house.run(pages("a", "one"), ["a"], lambda rows: chunk("a", "one"))
    first = versions(house, "parsed_markdown")["a"]
    row = records(house).made["chunks", "a"]
    assert (row.input_version, row.code_version) == (first, "7")
    house.run(pages("a", "changed"), ["a"])
    assert versions(house, "parsed_markdown")["a"] != first
    assert records(house).made["chunks", "a"].input_version == first  # so that it shows as stale


# What could not be made.


def test_a_document_that_was_not_made_keeps_what_was_known_of_it(house):
    house.run(pl.concat([pages("a", "one"), pages("b", "uno")]), ["a", "b"])
    before = records(house).made["parsed_markdown", "a"]
    house.run(Slices(pages("b", "UNO"), not_made={"a": KILLED}), ["a", "b"])
    assert texts(house) == [("a", 1, "one"), ("b", 1, "UNO")]
    assert records(house).made["parsed_markdown", "a"] == before
    [(failed, attempt)] = records(house).tried.items()
    assert failed == ("parsed_markdown", "a")
    assert (attempt.failure, attempt.code_version, attempt.attempts) == (KILLED, "7", 1)
    assert attempt.next_at is not None


def test_a_document_never_made_has_no_rows_and_its_attempt(house):
    house.run(Slices(pages("a"), not_made={"a": KILLED}), ["a"])
    assert texts(house) == []
    assert records(house).made == {}
    assert set(records(house).tried) == {("parsed_markdown", "a")}


def test_attempts_in_vain_are_counted(house):
    for _ in range(3):
        house.run(Slices(pages("a"), not_made={"a": KILLED}), ["a"])
    assert records(house).tried["parsed_markdown", "a"].attempts == 3


def test_a_document_made_at_last_has_no_attempt_any_more(house):
    house.run(Slices(pages("a"), not_made={"a": KILLED}), ["a"])
    house.run(pages("a", "one"), ["a"])
    assert texts(house) == [("a", 1, "one")]
    assert records(house).tried == {}


def test_a_document_that_is_incomplete_is_stored_and_its_attempt_with_it(house):
    budget = Failure(Cause.NOT_ASKED, "3 chunks without questions: the budget is spent")
    house.run(Slices(pages("a", "one"), incomplete={"a": budget}), ["a"])
    assert texts(house) == [("a", 1, "one")]
    assert set(versions(house, "parsed_markdown")) == {"a"}
    attempt = records(house).tried["parsed_markdown", "a"]
    assert (attempt.failure, attempt.next_at) == (budget, None)


def test_an_attempt_remembers_what_it_was_about(house):
    house.run(pages("a", "one"), ["a"], lambda rows: chunk("a", "one"))
    failed = Slices(TABLES["chunks"].empty(), not_made={"a": KILLED})
    house.run(pages("a", "two"), ["a"], lambda rows: failed)
    attempt = records(house).tried["chunks", "a"]
    assert attempt.input_version == versions(house, "parsed_markdown")["a"]
    assert house.warehouse.read("SELECT chunk_text FROM chunks").item() == "one"


def test_failures_of_documents_outside_the_run_are_refused(house):
    with pytest.raises(ValueError, match="rows of documents outside this run: b"):
        house.run(Slices(pages("a", "one"), not_made={"b": KILLED}), ["a"])


# What does not fit.


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (pages("a", "new").drop("markdown"), "missing column markdown"),
        (pages("a", "new").with_columns(extra=1), "unknown column extra"),
        (pages("a", "new").with_columns(page=pl.lit("1")), "page: String where Int64 belongs"),
    ],
    ids=["missing", "extra", "mistyped"],
)
def test_a_frame_that_does_not_fit_fails_the_run_and_keeps_the_old_slice(house, rows, complaint):
    house.run(pages("a", "one"), ["a"])
    with pytest.raises(TableMismatchError, match=complaint):
        house.run(rows, ["a"])
    assert texts(house) == [("a", 1, "one")]


def test_rows_of_documents_outside_the_run_are_refused(house):
    house.run(pages("b", "uno"), ["b"])
    with pytest.raises(ValueError, match="rows of documents outside this run: b"):
        house.run(pl.concat([pages("a", "one"), pages("b", "stray")]), ["a"])
    assert texts(house) == [("b", 1, "uno")]
