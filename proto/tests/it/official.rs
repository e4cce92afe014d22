//! Messages as TensorFlow Serving's official Python stubs encode them, in hexadecimal. Written by
//! `python official.py wheels`; see there for what the messages hold.

/// `tensorflow.serving.PredictRequest`. Version not set, values as raw bytes.
pub(crate) const PREDICT_REQUEST: &str = "\
    0a170a04697269731a0f73657276696e675f64656661756c7412270a05696e707574121e0801120812020801120208042210\
    3333a340000060403333b33fcdcc4c3e";

/// `tensorflow.serving.PredictRequest`. Version 0, which is not the same as none.
pub(crate) const PREDICT_REQUEST_VERSION_0: &str = "\
    0a080a046972697312001a066f7574707574";

/// `tensorflow.serving.ModelSpec`. A version by its label.
pub(crate) const LABELLED_SPEC: &str = "\
    0a04697269732206737461626c65";

/// `tensorflow.serving.PredictResponse`. Values in the typed list.
pub(crate) const PREDICT_RESPONSE: &str = "\
    0a240a066f7574707574121a0801120812020801120208032a0c0000403f0000803e0000807f121b0a046972697312020801\
    1a0f73657276696e675f64656661756c74";

/// `tensorflow.serving.PredictResponse`. One output of every other type that we read.
pub(crate) const PREDICT_RESPONSE_TYPES: &str = "\
    0a140a04626f6f6c120c080a1204120208025a0201000a290a07636f6e74656e74121e080112081202080212020802221033\
    33a340000060403333b33fcdcc4c3e0a1c0a06646f75626c651212080212041202080132089a9999999999b93f0a1f0a0569\
    6e743332121608031204120208023a0cffffffffffffffffff01ac020a1d0a05696e74363412140809120412020801520a80\
    80808080e0ffffff010a1d0a06737472696e671213080712041202080242067365746f73614201ff";

/// `tensorflow.serving.GetModelMetadataRequest`. Asks for the signatures.
pub(crate) const METADATA_REQUEST: &str = "\
    0a060a0469726973120d7369676e61747572655f646566";

/// `tensorflow.serving.GetModelMetadataResponse`. The two signatures of a SavedModel, in an `Any`.
pub(crate) const METADATA_RESPONSE: &str = "\
    0a0a0a04697269731202080112b5020a0d7369676e61747572655f64656612a3020a36747970652e676f6f676c6561706973\
    2e636f6d2f74656e736f72666c6f772e73657276696e672e5369676e61747572654465664d617012e8010a3e0a155f5f7361\
    7665645f6d6f64656c5f696e69745f6f70122512230a155f5f73617665645f6d6f64656c5f696e69745f6f70120a0a044e6f\
    4f701a0218010aa5010a0f73657276696e675f64656661756c741291010a370a05696e707574122e0a1773657276696e675f\
    64656661756c745f696e7075743a3010011a11120b08ffffffffffffffffff0112020804123a0a066f757470757412300a19\
    537461746566756c506172746974696f6e656443616c6c3a3010011a11120b08ffffffffffffffffff01120208031a1a7465\
    6e736f72666c6f772f73657276696e672f70726564696374";

/// `tensorflow.serving.GetModelStatusRequest`. Asks for all versions.
pub(crate) const STATUS_REQUEST: &str = "\
    0a060a0469726973";

/// `tensorflow.serving.GetModelStatusResponse`. One version that runs, one that failed to load.
pub(crate) const STATUS_RESPONSE: &str = "\
    0a060802101e1a000a16080110321a100805120c6e6f20737563682066696c65";

/// `tensorflow.serving.PredictRequest`. Fields that our .proto files leave out.
pub(crate) const UNKNOWN_FIELDS: &str = "\
    0a060a046972697312160a0468616c66120e081312041202080118036a0280782a02080132026d653a023007";

/// `tensorflow.SignatureDef`. A tensor in an encoding that our .proto files leave out.
pub(crate) const UNKNOWN_ENCODING: &str = "\
    0a100a05696e7075741207100122030a01761a016d22110a05696e707574120808012a040000803f";
