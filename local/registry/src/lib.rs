//! ECR on one machine: the ECR and OCI distribution APIs over one content-addressed store.
