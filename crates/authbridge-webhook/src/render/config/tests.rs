//! Table tests of webhook §12.1.
