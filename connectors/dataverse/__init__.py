"""Microsoft Dataverse, the database under Dynamics 365: rows over the Web API."""
