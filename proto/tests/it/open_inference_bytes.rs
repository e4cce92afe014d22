//! Messages as the official Python stubs of Triton and MLServer encode them, in hexadecimal. Written by
//! `python official_open_inference.py`; see there for what the messages hold.

/// `inference.ModelInferRequest`. Inputs as raw bytes, with parameters of each kind.
pub(crate) const REQUEST: &str = "\
    0a04697269731201311a013722070a01611202080122100a0162120b10ffffffffffffffffff0122080a016312031a017322\
    0e0a0164120921000000000000e03f22070a0165120228012a110a05696e7075741204465033321a0201042a100a04746578\
    74120542595445531a0101321e0a066f757470757412140a0e636c617373696669636174696f6e120210023a103333a34000\
    0060403333b33fcdcc4c3e3a0602000000fffe";

/// `inference.ModelInferResponse`. Outputs as raw bytes.
pub(crate) const RAW_RESPONSE: &str = "\
    0a04697269731201311a01372a120a066f75747075741204465033321a020103320c0000003f0000803e0000803e";

/// `inference.ModelInferResponse`. Outputs in the typed lists.
pub(crate) const TYPED_RESPONSE: &str = "\
    0a04697269731a01372a580a03616c6c1204465033321a01022a480a020100120cffffffffffffffffff01ac021a0a808080\
    8080e0ffffff012201072a0affffffffffffffffff0132040000403f3a089a9999999999b93f42067365746f73614201ff";

/// `inference.ModelMetadataResponse`. Triton's description of a model.
pub(crate) const METADATA: &str = "\
    0a04697269731201311201321a06707974686f6e221a0a05696e7075741204465033321a0bffffffffffffffffff01042a1b\
    0a066f75747075741204465033321a0bffffffffffffffffff0103";

/// `inference.ModelMetadataResponse`. MLServer's, with parameters in field 6.
pub(crate) const METADATA_MLSERVER: &str = "\
    0a04697269731201311201321a06707974686f6e221a0a05696e7075741204465033321a0bffffffffffffffffff01042a1b\
    0a066f75747075741204465033321a0bffffffffffffffffff010332100a016e120b10f9ffffffffffffffff01";

/// `inference.ModelConfigResponse`. Triton's configuration of a model, with fields that we leave out.
pub(crate) const CONFIG: &str = "\
    0a470a046972697312017020402a0c0a05696e707574100b22010432190a066f7574707574100d1a0affffffffffffffffff\
    0122016642086d6f64656c2e70798a0106707974686f6e";
