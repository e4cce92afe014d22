use tepal_proto::open_inference::{InferTensorContents as Contents, model_infer_request::InferInputTensor};

use super::*;

fn input(datatype: &str, shape: &[i64], contents: Contents) -> InferInputTensor {
    let (name, datatype) = ("x".to_owned(), datatype.to_owned());
    InferInputTensor {
        name,
        datatype,
        shape: shape.to_vec(),
        contents: Some(contents),
        ..InferInputTensor::default()
    }
}

fn read_all(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> Result<Vec<Given>, Vec<String>> {
    let raw = raw.iter().map(|raw| Bytes::from_static(raw)).collect();
    let shown = |errors: Vec<InputError>| {
        let one = |error: InputError| format!("{} {}: {}", error.pointer, error.code, error.detail);
        errors.into_iter().map(one).collect()
    };
    read(inputs, raw, Pointer::ROOT.member("inputs")).map_err(shown)
}

#[track_caller]
fn errors(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> Vec<String> {
    read_all(inputs, raw).unwrap_err()
}

fn bools(elements: &[bool]) -> Contents {
    Contents { bool_contents: elements.to_vec(), ..Contents::default() }
}

fn ints(elements: &[i32]) -> Contents {
    Contents { int_contents: elements.to_vec(), ..Contents::default() }
}

fn uints(elements: &[u32]) -> Contents {
    Contents { uint_contents: elements.to_vec(), ..Contents::default() }
}

fn strings(elements: &[&[u8]]) -> Contents {
    Contents {
        bytes_contents: elements.iter().map(|element| element.to_vec()).collect(),
        ..Contents::default()
    }
}

#[test]
fn each_type_is_read_from_its_list() {
    let wide = Contents {
        int64_contents: vec![-2],
        uint64_contents: vec![],
        fp32_contents: vec![],
        ..Contents::default()
    };
    let cases: [(&str, Contents, &str, Vec<u8>); 12] = [
        ("BOOL", bools(&[true]), "bool_contents", vec![1]),
        ("INT8", ints(&[-2]), "int_contents", vec![0xfe]),
        ("INT16", ints(&[-2]), "int_contents", (-2_i16).to_le_bytes().into()),
        ("INT32", ints(&[-2]), "int_contents", (-2_i32).to_le_bytes().into()),
        ("INT64", wide, "int64_contents", (-2_i64).to_le_bytes().into()),
        ("UINT8", uints(&[255]), "uint_contents", vec![255]),
        ("UINT16", uints(&[256]), "uint_contents", 256_u16.to_le_bytes().into()),
        ("UINT32", uints(&[7]), "uint_contents", 7_u32.to_le_bytes().into()),
        (
            "UINT64",
            Contents { uint64_contents: vec![u64::MAX], ..Contents::default() },
            "uint64_contents",
            vec![255; 8],
        ),
        (
            "FP32",
            Contents { fp32_contents: vec![1.5], ..Contents::default() },
            "fp32_contents",
            1.5_f32.to_le_bytes().into(),
        ),
        (
            "FP64",
            Contents { fp64_contents: vec![1.5], ..Contents::default() },
            "fp64_contents",
            1.5_f64.to_le_bytes().into(),
        ),
        ("BYTES", strings(&[b"ab"]), "bytes_contents", b"\x02\0\0\0ab".into()),
    ];
    for (datatype, contents, list, data) in cases {
        let read = read_all(vec![input(datatype, &[1], contents)], &[]).unwrap().remove(0);
        assert_eq!(
            (read.tensor.datatype.as_str(), read.tensor.data, read.form),
            (datatype, data, Form::List(list))
        );
    }
}

#[test]
fn raw_bytes_are_those_of_their_input() {
    let inputs = vec![
        input("FP16", &[2], Contents::default()),
        InferInputTensor { contents: None, ..input("BYTES", &[1, 1], Contents::default()) },
    ];
    let read = read_all(inputs, &[b"\0\x3c\0\x40", b"\x01\0\0\0a"]).unwrap();
    let data: Vec<_> = read.iter().map(|given| (given.tensor.data.as_slice(), given.form)).collect();
    assert_eq!(data, [(&b"\0\x3c\0\x40"[..], Form::Raw), (b"\x01\0\0\0a", Form::Raw)]);
}

#[test]
fn raw_bytes_that_do_not_fit_are_refused() {
    let one = || vec![input("INT16", &[2], Contents::default())];
    let raw = "/raw_input_contents";
    assert_eq!(
        errors(one(), &[b"ab", b"cd"]),
        [format!("{raw} length: must have one element for each of the 1 inputs, not 2")]
    );
    assert_eq!(
        errors(one(), &[b"ab"]),
        [format!("{raw}/0 length: must be 4, since INT16 of the shape [2] has so many bytes, not 2")]
    );
    assert_eq!(
        errors(vec![input("INT16", &[2], ints(&[1, 2]))], &[b"abcd"]),
        ["/inputs/0/contents/int_contents conflict: must be empty, since the request has raw_input_contents"]
    );
    let bytes = errors(vec![input("BYTES", &[1], Contents::default())], &[b"\x02\0\0\0a"]);
    assert!(bytes[0].starts_with("/inputs/0 length: must have elements with their lengths"), "{bytes:?}");
    let flags = errors(vec![input("BOOL", &[2], Contents::default())], &[b"\x01\x02"]);
    assert!(flags[0].ends_with("must have only bytes 0 and 1, but element 1 is 2"), "{flags:?}");
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let error =
        |datatype, shape: &[i64], contents| errors(vec![input(datatype, shape, contents)], &[]).join("; ");
    assert_eq!(
        error("FP32", &[2], ints(&[1, 2])),
        "/inputs/0/contents/int_contents unknown_field: must be empty: the elements of FP32 are in fp32_contents; \
         /inputs/0/contents/fp32_contents length: must have 2 elements, as the shape [2] says, not 0"
    );
    assert_eq!(
        error("FP16", &[1], Contents { fp32_contents: vec![1.0], ..Contents::default() }),
        "/inputs/0/contents missing: must be empty: FP16 has no list, its elements are sent in raw_input_contents"
    );
    assert_eq!(
        error("UINT8", &[2], uints(&[256, 1])),
        "/inputs/0/contents/uint_contents/0 out_of_range: must be an element of UINT8, not 256"
    );
    assert_eq!(
        error("INT8", &[3], ints(&[1, 2])),
        "/inputs/0/contents/int_contents length: must have 3 elements, as the shape [3] says, not 2"
    );
    assert!(
        error("fp32", &[1], Contents::default()).starts_with("/inputs/0/datatype unknown_value: must be")
    );
    assert_eq!(
        error("BOOL", &[0, -1], bools(&[])),
        "/inputs/0/shape/0 out_of_range: must be a whole number from 1, not 0; \
         /inputs/0/shape/1 out_of_range: must be a whole number from 1, not -1"
    );
    assert!(
        error("BOOL", &[1; 255], bools(&[true]))
            .contains("/inputs/0/shape length: must have at most 254 axes")
    );
    assert!(
        error("BOOL", &[1 << 20, 1 << 20], bools(&[]))
            .contains("must have at most 1073741824 elements in all")
    );
}

#[test]
fn a_request_with_very_many_mistakes_reports_the_first() {
    let wrong = vec![input("UINT8", &[100], uints(&[256; 100])); 10];
    assert_eq!(errors(wrong, &[]).len(), MOST_ERRORS);
    let wrong = vec![input("x", &[0], Contents::default()); 100];
    assert_eq!(errors(wrong, &[]).len(), MOST_ERRORS);
}
