"""Small files of each format, made with the libraries that people make them with."""

import io
import zipfile
from email.message import EmailMessage

_PARTS = {
    "[Content_Types].xml": (
        '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        'content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-'
        'package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.wordprocessingml.document.main+xml"/></Types>'
    ),
    "_rels/.rels": (
        '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
        'relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/'
        'officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
        "</Relationships>"
    ),
}


def a_docx(title: str = "The handbook") -> bytes:
    """A title, two headings, a list and a table of three rows."""
    import docx

    document = docx.Document()
    document.core_properties.title = title
    document.add_heading("First steps", 1)
    document.add_paragraph("Open the box.")
    document.add_heading("Power", 2)
    document.add_paragraph("Plug it in.", style="List Bullet")
    table = document.add_table(3, 2)
    for row in range(3):
        for column in range(2):
            table.cell(row, column).text = f"r{row}c{column}"
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def raw_docx(body: str, before: str = "") -> bytes:
    """A DOCX with this XML in its body, and something before the root element."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in _PARTS.items():
            package.writestr(name, content)
        package.writestr(
            "word/document.xml",
            f'{before}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/'
            f'main"><w:body>{body}</w:body></w:document>',
        )
    return file.getvalue()


def a_pptx() -> bytes:
    """Three slides with titles and points, and one with a table."""
    import pptx

    deck = pptx.Presentation()
    deck.core_properties.title = "The plan"
    for number in (1, 2, 3):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Step {number}"
        slide.placeholders[1].text = f"point {number}"
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Costs"
    table = slide.shapes.add_table(2, 2, 0, 0, 100_000, 100_000).table
    for row in range(2):
        for column in range(2):
            table.cell(row, column).text = f"r{row}c{column}"
    file = io.BytesIO()
    deck.save(file)
    return file.getvalue()


def an_xlsx(title: str | None = "The prices") -> bytes:
    """Two sheets with values and an empty one."""
    import openpyxl

    book = openpyxl.Workbook()
    book.properties.title = title
    book.active.title = "Fruit"
    for row in (["name", "price"], ["apple", 1.5], [None, None], ["pear", 2]):
        book.active.append(row)
    book.create_sheet("Nuts").append(["hazel", 3])
    book.create_sheet("Empty")
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def sparse_xlsx(rows: int) -> bytes:
    """A value in the first row and one in the last, and nothing but empty rows between them."""
    import openpyxl

    cell = '<c r="A{0}" t="inlineStr"><is><t>value {0}</t></is></c>'
    between = "".join(f'<row r="{row}"/>' for row in range(2, rows))
    sheet = (
        '<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/'
        f'2006/main"><sheetData><row r="1">{cell.format(1)}</row>{between}'
        f'<row r="{rows}">{cell.format(rows)}</row></sheetData></worksheet>'
    )
    file = io.BytesIO()
    book = openpyxl.Workbook()
    book.save(file)
    made = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            of_sheet = info.filename == "xl/worksheets/sheet1.xml"
            new.writestr(info.filename, sheet if of_sheet else old.read(info))
    return made.getvalue()


def a_pdf(
    *, title: str | None = "The manual", password: str | None = None, script: str | None = None
) -> bytes:
    """Three pages, a chapter on each."""
    from fpdf import FPDF

    pdf = FPDF()
    if title is not None:
        pdf.set_title(title)
    if password is not None:
        pdf.set_encryption(owner_password=f"{password}-owner", user_password=password)
    for number in (1, 2, 3):
        pdf.add_page()
        pdf.set_font("Helvetica", size=24)
        pdf.cell(0, 12, f"Chapter {number}", new_x="LMARGIN", new_y="NEXT")
        pdf.set_font("Helvetica", size=11)
        pdf.multi_cell(0, 6, f"The words of page {number}. " * 40)
    made = bytes(pdf.output())
    if script is not None:
        made = made.replace(
            b"/Type /Catalog",
            f"/Type /Catalog /OpenAction <</S /JavaScript /JS ({script})>>".encode(),
        )
    return made


def an_eml() -> bytes:
    """A mail with a text and an attached file."""
    mail = EmailMessage()
    mail["From"], mail["To"] = "Ann <ann@example.org>", "bob@example.org"
    mail["Subject"] = "Grüße from the team"
    mail.set_content("The meeting is on Tuesday.")
    mail.add_attachment(b"secret words", maintype="application", subtype="pdf", filename="plan.pdf")
    return mail.as_bytes()


FILES = {
    "a.docx": a_docx,
    "a.pptx": a_pptx,
    "a.xlsx": an_xlsx,
    "a.pdf": a_pdf,
    "a.eml": an_eml,
}
