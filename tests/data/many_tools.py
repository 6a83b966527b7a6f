"""2,000 tools of 40 invented systems, as different teams would describe them. Deterministic; the questions are in questions.tsv."""

from datetime import UTC, datetime
from typing import Any

from tools.models import EndpointConfig, Integration
from tools.tool import Tool, tools_of

SYSTEMS: dict[str, tuple[str, str]] = {
    "clinic": ("City Clinic", "patient appointment encounter prescription observation allergy immunization referral practitioner insurance_claim"),
    "northlab": ("Northlab Laboratory", "sample test_order lab_result panel reagent courier_pickup instrument calibration report technician"),
    "salesnest": ("SalesNest CRM", "lead contact company deal pipeline activity quote note campaign territory"),
    "helpdesk": ("Helpdesk", "ticket comment agent queue macro sla_policy satisfaction_rating article tag organization"),
    "gitforge": ("GitForge", "repository branch pull_request commit issue release webhook deploy_key label milestone"),
    "paywise": ("Paywise Payments", "payment refund customer card subscription invoice payout dispute coupon tax_rate"),
    "shipfast": ("ShipFast", "shipment shipping_label pickup rate_quote tracking_event return carrier manifest customs_form address"),
    "peopledesk": ("PeopleDesk HR", "employee time_off_request position department payroll_run benefit candidate interview onboarding_task performance_review"),
    "mailroom": ("Mailroom Marketing", "message mailing_list subscriber template sender_domain bounce segment automation landing_page unsubscribe"),
    "calendarium": ("Calendarium", "event calendar meeting_room attendee reminder availability_slot booking_page recurrence timezone invitation"),
    "cloudhost": ("CloudHost", "server volume snapshot firewall_rule load_balancer ssh_key dns_record domain database backup"),
    "watchtower": ("Watchtower Monitoring", "monitor alert incident dashboard metric log_query on_call_schedule escalation_policy status_page maintenance_window"),
    "docshelf": ("DocShelf", "document folder version share_link comment signature_request template permission tag archive"),
    "stockroom": ("Stockroom", "product stock_level warehouse purchase_order supplier bin_location stock_transfer cycle_count barcode reorder_rule"),
    "storefront": ("Storefront Shop", "order cart product variant collection discount gift_card customer fulfillment review"),
    "ledgerly": ("Ledgerly Accounting", "journal_entry account bill vendor expense_report bank_transaction budget fiscal_period asset tax_return"),
    "chatter": ("Chatter", "channel message user reaction thread file workspace_invite bot emoji status"),
    "projectboard": ("ProjectBoard", "project task sprint epic milestone time_entry checklist label board_column dependency"),
    "fleetview": ("FleetView", "vehicle driver trip fuel_purchase inspection maintenance_job geofence route toll_charge accident_report"),
    "smarthome": ("SmartHome", "device room scene automation sensor_reading thermostat camera lock light_group energy_usage"),
    "hotelier": ("Hotelier", "reservation guest room rate_plan housekeeping_task folio minibar_charge key_card event_space loyalty_account"),
    "airdesk": ("AirDesk", "flight passenger booking seat baggage_item boarding_pass crew_roster gate meal_request delay_notice"),
    "campus": ("Campus", "student course enrollment grade lecturer exam classroom assignment library_loan scholarship"),
    "citydesk": ("City Services", "permit complaint parking_fine property council_meeting road_closure waste_collection business_license voter_registration public_event"),
    "surveyor": ("Surveyor", "survey question response panelist quota incentive export branching_rule translation invitation"),
    "adreach": ("AdReach", "campaign ad_group creative keyword audience bid conversion budget placement landing_page"),
    "vaultkey": ("VaultKey", "secret policy certificate token audit_log user_group rotation_schedule encryption_key access_request approval"),
    "dataforge": ("DataForge", "dataset pipeline job_run table column connector quality_check schedule notebook cluster"),
    "lexhub": ("LexHub Legal", "contract clause matter client court_filing deadline billing_entry counterparty evidence_item negotiation"),
    "farmlink": ("FarmLink", "field crop harvest irrigation_schedule soil_sample tractor livestock_animal feed_order weather_reading pesticide_treatment"),
    "gymflow": ("GymFlow", "member fitness_class trainer membership_plan check_in locker workout equipment guest_pass payment_reminder"),
    "kitchenpos": ("Kitchen POS", "table menu_item order tab reservation ingredient recipe shift tip supplier_delivery"),
    "realtor": ("Realtor", "listing showing offer buyer tenant lease inspection open_house commission mortgage_application"),
    "insureall": ("InsureAll", "policy claim quote beneficiary premium_payment adjuster coverage accident document_request renewal"),
    "energygrid": ("EnergyGrid", "meter meter_reading outage tariff customer_contract substation work_crew connection_request solar_panel bill"),
    "musicbox": ("MusicBox", "track album playlist artist royalty_payment concert listener podcast_episode license lyrics"),
    "newsroom": ("Newsroom", "article author photo section headline press_release comment newsletter correction video"),
    "charity": ("GoodCause Charity", "donation donor volunteer grant fundraiser beneficiary pledge receipt shift event"),
    "lingua": ("Lingua Translations", "translation_project translation_job glossary_term language_pair translator text_string review memory_entry invoice deadline"),
    "knowhub": ("KnowHub Wiki", "page space revision attachment template watcher comment search_index link page_tree"),
}  # fmt: skip
SPECIAL: dict[str, tuple[str, str]] = {
    "appointment": ("cancel", "Cancels an appointment and frees the slot."),
    "booking": ("cancel", "Cancels a booking and its tickets."),
    "reservation": ("cancel", "Cancels a reservation."),
    "order": ("cancel", "Cancels an order that has not been prepared or sent."),
    "shipment": ("track", "Shows where a shipment is now."),
    "time_off_request": ("approve", "Approves days off that were asked for."),
    "expense_report": ("approve", "Approves an expense report for reimbursement."),
    "access_request": ("approve", "Grants an access request."),
    "ticket": ("close", "Closes a ticket as solved."),
    "incident": ("acknowledge", "Acknowledges an incident so that the paging stops."),
    "pull_request": ("merge", "Merges a pull request into its base branch."),
    "server": ("restart", "Restarts a server."),
    "backup": ("restore", "Restores a database from a backup."),
    "job_run": ("start", "Starts a run of a job now."),
    "payout": ("pause", "Pauses payouts to the bank account."),
    "subscription": ("cancel", "Ends a subscription at the end of the period."),
    "secret": ("rotate", "Rotates a secret to a new value."),
    "certificate": ("renew", "Renews a TLS certificate."),
    "library_loan": ("renew", "Extends a loan of a book."),
    "donation": ("refund", "Pays a donation back to the donor."),
    "lock": ("unlock", "Unlocks a door."),
    "vehicle": ("locate", "Shows the position of a vehicle on the map."),
    "document": ("download", "Downloads the content of a document."),
    "campaign": ("pause", "Pauses a campaign."),
    "candidate": ("reject", "Turns a candidate down and sends the standard letter."),
}


def endpoints() -> dict[str, list[EndpointConfig]]:
    """system -> its 50 endpoints."""
    return {
        system: [e for noun in nouns.split() for e in _five(i % 4, noun, display)]
        for i, (system, (display, nouns)) in enumerate(SYSTEMS.items())
    }


def many_tools() -> tuple[Tool, ...]:
    """2,000 tools by name."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    no_parts: Any = None  # nothing is called
    found: list[Tool] = []
    for system, listed in endpoints().items():
        integration = Integration(
            id=system,
            workspace_id="acme",
            name=system,
            display_name=SYSTEMS[system][0],
            base_url="https://example.com",
            endpoints=tuple(listed),
            created_at=now,
            updated_at=now,
        )
        found += tools_of(integration, no_parts, 48)
    return tuple(sorted(found, key=lambda t: t.name))


def _five(style: int, noun: str, display: str) -> list[EndpointConfig]:
    words = noun.replace("_", " ")
    special = SPECIAL.get(noun)
    text = _TEXTS[style]
    rows: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("list", "GET", f"/{noun}s", text[0], {"limit": "integer", "cursor": "string", "status": "string"}),
        ("get", "GET", f"/{noun}s/{{id}}", text[1], {}),
        ("create", "POST", f"/{noun}s", text[2], {"name": "string", "notes": "string"}),
        ("update", "PUT", f"/{noun}s/{{id}}", text[3], {"name": "string", "notes": "string"}),
    ]
    if special is None:
        rows.append(("delete", "DELETE", f"/{noun}s/{{id}}", text[4], {}))
    else:
        rows.append((special[0], "POST", f"/{noun}s/{{id}}/{special[0]}", special[1], {"reason": "string"}))
    return [
        EndpointConfig(
            name=_named(style, verb, noun),
            description=said.format(words=words, plural=_plural(words), display=display),
            method=method,  # pyright: ignore
            path=path,
            input_schema={"type": "object", "properties": {n: {"type": t} for n, t in arguments.items()}},
        )
        for verb, method, path, said, arguments in rows
    ]


def _named(style: int, verb: str, noun: str) -> str:
    many = noun.replace(noun.split("_")[-1], _plural(noun.split("_")[-1])) if verb == "list" else noun
    if style == 1:
        return verb + "".join(w.capitalize() for w in many.split("_"))
    if style == 2:
        return f"{many}.{verb}"
    return f"{verb}_{many}"


def _plural(words: str) -> str:
    if words.endswith("y") and words[-2] not in "aeiou":
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("s", "x", "ch", "sh")) else "s")


_TEXTS = (
    (
        "Lists {plural}. Supports paging with limit and cursor.",
        "Gets one {words} by its id.",
        "Creates a new {words}.",
        "Updates fields of a {words}; what is left out stays.",
        "Deletes a {words}.",
    ),
    (
        "Returns a paginated collection of {words} objects, optionally filtered by status.",
        "Returns the {words} object with the given identifier.",
        "Creates a {words} object and returns it.",
        "Modifies an existing {words} object.",
        "Permanently removes a {words} object.",
    ),
    ("{plural}, newest first.", "One {words}.", "New {words}.", "Change {words}.", "Remove {words}."),
    (
        "Use this to search the {plural} that {display} knows, for example by status. Returns at most 100 at a time.",
        "Use this when you have the id of a {words} and want to see its details.",
        "Use this to add a {words} to {display}. Ask the user for the name first.",
        "Use this to change the details of a {words} that exists already.",
        "Use this to get rid of a {words}. This cannot be undone.",
    ),
)
