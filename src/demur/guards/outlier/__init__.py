"""The usual detectors of outliers, as guards."""
