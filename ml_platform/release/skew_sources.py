"""What the features of an answer are compared with: the definitions of its release, and what was online then."""

from collections.abc import Mapping
from functools import cache

from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.release import Release
from ml_platform.errors import ArtifactCorruptError, ContractError
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.skew import Computable, Source
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.release.publishing import as_released


def sources_of(product: Product, releases: Mapping[str, Release], store: ArtifactStore) -> Computable:
    """Finds what a record's features are to be compared with; everything is opened once.

    A sentence stands for a record that cannot be compared: its release or its features are gone, or this code
    computes features by other definitions.
    """

    @cache
    def source(release_id: str, definitions: str, features: str) -> Source | str:
        if release_id not in releases:
            return f"release {release_id[:12]} is not in the ledger"
        try:
            judged = as_released(product, releases[release_id], store)
            now = definitions_sha256(judged)
            if now != definitions:
                return f"definitions {definitions[:12]} cannot be computed: this code and its sources give {now[:12]}"
            return Source(judged, store.open("features", features))
        except (ArtifactCorruptError, ContractError) as error:
            return str(error)

    def source_of(record: ProvenanceRecord) -> Source | str:
        read = record.features
        if read is None or record.release_id is None:
            return "no features were read"
        if read.features_sha256 is None:
            return "the record does not say which features were online"
        return source(record.release_id, read.definitions_sha256, read.features_sha256)

    return source_of
