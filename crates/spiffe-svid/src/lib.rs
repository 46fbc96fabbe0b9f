//! Where an X.509-SVID comes from: the SPIFFE Workload API or PEM files.
